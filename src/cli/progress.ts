/** A progress bar on standard error while messages become safe, when that is a terminal. */
import { Presets, SingleBar } from 'cli-progress';
import { onBeforeInfo } from './output.js';

export interface Progress {
  update(settled: number, sent: number): void;
  stop(): void;
}

export const NO_PROGRESS: Progress = { update: () => undefined, stop: () => undefined };

const CLEAR_LINE = '\r\u001b[K';
const REDRAW_EVERY = 50;

export function startProgress(): Progress {
  if (!process.stderr.isTTY) return NO_PROGRESS;
  const bar = new SingleBar(
    {
      format: '{bar} {value} of {total} settled, {rate}/s',
      stream: process.stderr,
      barsize: 24,
      hideCursor: false,
      forceRedraw: true,
      clearOnComplete: true,
      gracefulExit: false, // signals are the command's
    },
    Presets.shades_classic,
  );
  const started = performance.now();
  let drawn = started;
  bar.start(0, 0, { rate: 0 });
  onBeforeInfo(() => process.stderr.write(CLEAR_LINE));
  return {
    update(settled, sent) {
      const now = performance.now();
      if (now - drawn < REDRAW_EVERY) return;
      drawn = now;
      bar.setTotal(sent);
      bar.update(settled, { rate: Math.round((settled * 1000) / (now - started)) });
    },
    stop() {
      onBeforeInfo(undefined);
      bar.stop();
    },
  };
}
