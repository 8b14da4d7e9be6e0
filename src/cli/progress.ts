/** A progress bar on standard error while messages become safe, when that is a terminal. It draws itself now and then. */
import { Format, Presets, SingleBar } from 'cli-progress';
import { onBeforeInfo } from './output.js';

const CLEAR_LINE = '\r\u001b[K';

/** Shows how many of the messages that were sent are settled. Returns what takes the bar away. */
export function showProgress(source: { readonly settled: number; readonly sent: number }): () => void {
  if (!process.stderr.isTTY) return () => undefined;
  const started = performance.now();
  const bar = new SingleBar(
    {
      format: options => {
        const { settled, sent } = source;
        const rate = Math.round((settled * 1000) / Math.max(1, performance.now() - started));
        const drawn = Format.BarFormat(sent === 0 ? 0 : settled / sent, options);
        return `${drawn} ${String(settled)} of ${String(sent)} settled, ${String(rate)}/s`;
      },
      stream: process.stderr,
      barsize: 24,
      hideCursor: false,
      forceRedraw: true,
      clearOnComplete: true,
      gracefulExit: false, // signals are the command's
    },
    Presets.shades_classic,
  );
  bar.start(1, 0);
  onBeforeInfo(() => process.stderr.write(CLEAR_LINE));
  return () => {
    onBeforeInfo(undefined);
    bar.stop();
  };
}
