// The tables as a picture: bars for each kind of work, the medians, with a line from the lowest to the highest repetition.
import * as vega from 'vega';
import { compile } from 'vega-lite';
import { groupsOf } from './report.js';

const OURS = '#1f6fb4';
const OTHERS = '#b8bec6';

const AXES = {
  rate: 'messages a second (more is better)',
  p50: 'p50, µs (less is better)',
  bytesEach: "the server's memory for each, bytes (less is better)",
};

/** One picture of a table, without the limit, beside which all others would be short. */
function chartOf([title, all]) {
  const rows = all.filter(({ peer }) => peer !== 'limit');
  const [first] = rows;
  const measure = ['rate', 'p50', 'bytesEach'].find(name => first[name] !== undefined);
  const values = rows.map(row => ({ who: row.title, ours: row.peer.startsWith('broadcast'), ...row[measure] }));
  const y = { field: 'who', type: 'nominal', sort: null, title: null, axis: { labelLimit: 260 } };
  const axis = AXES[measure];
  const color = { condition: { test: 'datum.ours', value: OURS }, value: OTHERS };
  return {
    title: { text: title, anchor: 'start' },
    width: 420,
    data: { values },
    layer: [
      {
        mark: 'bar',
        encoding: { y, x: { field: 'median', type: 'quantitative', title: axis, axis: { format: '~s' } }, color },
      },
      { mark: 'rule', encoding: { y, x: { field: 'low', type: 'quantitative' }, x2: { field: 'high' } } },
    ],
  };
}

async function draw(whole) {
  const view = new vega.View(vega.parse(compile({ ...whole, background: 'white' }).spec), { renderer: 'none' });
  return await view.toSVG();
}

/** Bars for each kind of work, as an SVG document. */
export function bars(summary) {
  const charts = [...groupsOf(summary)].map(chartOf);
  return draw({ vconcat: charts, resolve: { scale: { x: 'independent', y: 'independent' } } });
}

/** Lines in several charts, each with its points and, where there are repetitions, their spread. */
export function lines(charts) {
  const vconcat = charts.map(({ title, x, y, log = false, points }) => {
    const across = { field: 'x', type: 'quantitative', title: x, scale: { type: log ? 'log' : 'linear' } };
    const color = { field: 'series', type: 'nominal', title: null, sort: null };
    const up = { type: 'quantitative', title: y, scale: { zero: true }, axis: { format: '~s' } };
    const line = { mark: { type: 'line', point: log }, encoding: { x: across, y: { field: 'median', ...up }, color } };
    const band = {
      mark: { type: 'rule' },
      encoding: { x: across, y: { field: 'low', ...up }, y2: { field: 'high' }, color },
    };
    const layer = points.some(({ low }) => low !== undefined) ? [line, band] : [line];
    return { title: { text: title, anchor: 'start' }, width: 520, height: 220, data: { values: points }, layer };
  });
  return draw({ vconcat, resolve: { scale: { x: 'independent', y: 'independent', color: 'independent' } } });
}
