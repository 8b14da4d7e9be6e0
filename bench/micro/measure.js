// Times small pieces of code: every case in many short rounds that take turns, so that a disturbance hits all alike; the
// median round counts, the best one shows what it might have been.
import { spread } from '../report.js';

/** `cases`: functions by name that do their work `per` times. Returns nanoseconds for one. */
export function measure(cases, { per = 1, rounds = 60, roundMs = 5 } = {}) {
  const names = Object.keys(cases);
  const repeats = Object.fromEntries(names.map(name => [name, calibrate(cases[name], roundMs)]));
  const times = Object.fromEntries(names.map(name => [name, []]));
  for (let round = 0; round < rounds; round++)
    for (const name of names) times[name].push(time(cases[name], repeats[name]) / (repeats[name] * per));
  return Object.fromEntries(names.map(name => [name, spread(times[name])]));
}

function time(work, repeats) {
  const began = process.hrtime.bigint();
  for (let i = 0; i < repeats; i++) work();
  return Number(process.hrtime.bigint() - began);
}

/** So many repeats that a round lasts long enough to be timed; warms the case up as well. */
function calibrate(work, roundMs) {
  let repeats = 1;
  while (time(work, repeats) < roundMs * 1e6) repeats *= 2;
  return repeats;
}
