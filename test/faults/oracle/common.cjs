// What the processes of a scenario have in common: a history that outlives a kill -9 of its process, chance that follows
// a seed, and a word to the parent.
const { openSync, writeSync, appendFileSync } = require('node:fs');
const { crc32 } = require('node:zlib');
const { seeded } = require('../../helpers/seeded.cjs');

/** Milliseconds on the clock that all processes of a machine share; it does not jump. */
const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;

/**
 * An append-only file, one record a line. What `write` was given is with the system before it returns, so that a kill of
 * this process loses nothing of it; only the line that is being written may be torn.
 */
class History {
  #file;

  constructor(path) {
    this.#file = openSync(path, 'a', 0o600);
  }

  write(...records) {
    const lines = linesOf(records);
    for (let at = 0; at < lines.length;) at += writeSync(this.#file, lines, at);
  }
}

/** The same without a descriptor that stays open, for a process that keeps thousands of them. */
class ClosedHistory {
  #path;

  constructor(path) {
    this.#path = path;
  }

  write(...records) {
    appendFileSync(this.#path, linesOf(records), { mode: 0o600 });
  }
}

const linesOf = records => Buffer.from(records.map(record => `${JSON.stringify(record)}\n`).join(''));

/** Keeps what the library says in a file beside the history. */
function fileLogger(path) {
  const keep = (...parts) => appendFileSync(path, `${now()} ${parts.map(text).join(' ')}\n`);
  const pass = () => undefined;
  return { debug: pass, info: pass, warn: keep, error: keep };
}

const text = part => (part instanceof Error ? (part.stack ?? part.message) : String(part));

const tell = message => process.connected && process.send(message, () => undefined);

/** Runs a role until its parent ends it; without a parent it ends at once. */
function play(start, commands) {
  process.on('disconnect', () => process.exit());
  process.on('message', message => void commands[message.type]?.(message));
  start().catch(error => {
    tell({ type: 'failed', code: error.code, text: text(error) });
    process.exitCode = 1;
  });
}

const checksum = body => crc32(String(body));

module.exports = { ClosedHistory, History, checksum, fileLogger, now, play, seeded, tell };
