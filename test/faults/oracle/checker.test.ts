/** The oracle is seen to fail: histories written by hand, one for each class, and for each thing that can be wrong. */
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../../helpers/scene.js';
import { check, WRONGS, type Cast, type Verdict } from './checker.js';
import { Histories, type Entry, type History } from './records.js';

const CAST: Cast = { shared: ['team'], unordered: ['worker/fast'], drained: true, expirySlack: 100 };

type Step = readonly [process: string, entry: Entry];

/** Histories of the steps, which happen a millisecond apart; a process is named `sender.1`, or after its name. */
function histories(steps: readonly Step[]): History[] {
  const byProcess = new Map<string, (Entry & { t: number })[]>();
  for (const [i, [process, entry]] of steps.entries()) {
    const name = process.split('.')[0] as string;
    const k = name === 'sender' ? 'sender' : 'receiver';
    const history = byProcess.get(process) ?? [{ k, name, process, t: i }];
    byProcess.set(process, history);
    history.push({ ...entry, t: i });
  }
  return [...byProcess.values()];
}

const judge = (steps: readonly Step[], cast: Partial<Cast> = {}): Verdict =>
  check(histories(steps), { ...CAST, ...cast });

/** What is wrong, and how often. */
const wrongs = (verdict: Verdict): Record<string, number> =>
  Object.fromEntries(WRONGS.filter(name => verdict.wrong[name] > 0).map(name => [name, verdict.wrong[name]]));

// ---- steps ---------------------------------------------------------------------------------------------------------------

type Intent = Extract<Entry, { k: 'intent' }>;

const intent = (n: number, more: Partial<Intent> = {}, process = 'sender.1'): Step => [
  process,
  { k: 'intent', n, id: `${process}-${String(n)}`, to: ['worker/'], persistent: true, until: 'safe', crc: n, ...more },
];
/** One with a time to live that is over soon. */
const brief = (n: number): Step => intent(n, { ttl: 1 });
const receipt = (n: number, status: 'delivered' | 'stored' | 'routed' | 'undelivered', process = 'sender.1'): Step => [
  process,
  { k: 'receipt', n, status, durability: status === 'stored' ? 'fsync' : 'none', failures: [] },
];
const notice = (n: number, more: Partial<Extract<Entry, { k: 'notice' }>> = {}): Step => [
  'sender.1',
  {
    k: 'notice',
    messageId: `sender.1-${String(n)}`,
    target: { client: 'worker' },
    reason: 'expired',
    queued: false,
    final: true,
    attempts: 0,
    at: 0,
    ...more,
  },
];
const got = (n: number, process = 'worker.1', more: Partial<Extract<Entry, { k: 'got' }>> = {}): Step => [
  process,
  { k: 'got', key: `sender.1:${String(n)}`, sub: '', attempt: 1, redelivered: false, crc: n, ...more },
];
const ended = (n: number, process = 'worker.1', sub = '', k: 'done' | 'threw' = 'done'): Step => [
  process,
  { k, key: `sender.1:${String(n)}`, sub },
];
const handled = (n: number, process = 'worker.1', sub = '', redelivered = false): Step[] => [
  got(n, process, { sub, redelivered }),
  ended(n, process, sub),
];
const online = (process: string): Step => [process, { k: 'online' }];
const closed = (process = 'sender.1'): Step => [process, { k: 'closed' }];

// ---- classes -------------------------------------------------------------------------------------------------------------

describe('a message that was meant to be sent is', () => {
  it('delivered, when a handler of its recipient has ended', () => {
    const verdict = judge([intent(1), ...handled(1), receipt(1, 'delivered'), closed()]);
    expect(verdict).toMatchObject({
      messages: 1,
      delivered: 1,
      waiting: 0,
      noticed: 0,
      unknown: 0,
      handlings: 1,
      text: [],
    });
  });

  it('waiting, when it is stored and nothing was drained, and lost when everything was', () => {
    const steps = [intent(1), receipt(1, 'stored'), closed()];
    expect(judge(steps, { drained: false })).toMatchObject({ waiting: 1, text: [] });
    expect(judge(steps)).toMatchObject({
      waiting: 0,
      wrong: { lost: 1 },
      text: ['lost: sender.1:1 for worker/, stored (fsync)'],
    });
  });

  it('lost, when it was said to be delivered and no handler has ended it, drained or not', () => {
    const verdict = judge([intent(1), receipt(1, 'delivered'), got(1), closed()], { drained: false });
    expect(wrongs(verdict)).toEqual({ lost: 1, premature: 1 });
  });

  it('failed with a notice, when its sender was told that it will not arrive', () => {
    const verdict = judge([brief(1), receipt(1, 'stored'), notice(1), closed()]);
    expect(verdict).toMatchObject({ noticed: 1, reasons: { expired: 1 }, text: [] });
    // Who is told that it waits was not told that it failed; and a notice is about one recipient.
    for (const more of [
      { final: false, queued: true },
      { target: { client: 'other' } },
      { target: { client: 'worker', channel: 'x' } },
    ])
      expect(wrongs(judge([brief(1), receipt(1, 'stored'), notice(1, more), closed()]))).toEqual({ lost: 1 });
  });

  it('failed with a notice that stands for several, or that comes to a later process of the sender’s name', () => {
    const both = [brief(1), brief(2), receipt(1, 'stored'), receipt(2, 'stored')];
    expect(judge([...both, notice(1, { count: 2 }), closed()])).toMatchObject({ noticed: 2, text: [] });
    expect(wrongs(judge([...both, notice(1), closed()]))).toEqual({ lost: 1 });
    const [, about] = notice(1, { count: 2 });
    expect(judge([...both, ['sender.2', about], closed('sender.2')])).toMatchObject({ noticed: 2, text: [] });
  });

  it('of unknown outcome, when its sender was killed before its receipt', () => {
    expect(judge([intent(1)])).toMatchObject({ unknown: 1, text: [] });
    expect(judge([intent(1), ...handled(1)])).toMatchObject({ unknown: 0, delivered: 1, text: [] });
  });

  it('lost, and without an answer, when its sender lives and has heard nothing', () => {
    expect(wrongs(judge([intent(1), closed()]))).toEqual({ lost: 1, unanswered: 1 });
    expect(judge([intent(1), closed()], { drained: false })).toMatchObject({ waiting: 1, text: [] });
  });

  it('delivered to one recipient and lost for another', () => {
    const verdict = judge([intent(1, { to: ['worker/', 'other/x'] }), ...handled(1), receipt(1, 'stored'), closed()]);
    expect(verdict).toMatchObject({ delivered: 1, text: ['lost: sender.1:1 for other/x, stored (fsync)'] });
  });
});

describe('it is found when', () => {
  it('a living process handles a message twice', () => {
    const once = [intent(1), ...handled(1)];
    expect(wrongs(judge([...once, ...handled(1, 'worker.1', '', true), receipt(1, 'delivered'), closed()]))).toEqual({
      duplicated: 1,
    });
    expect(wrongs(judge([intent(1), got(1), got(1), ended(1), receipt(1, 'delivered'), closed()]))).toEqual({
      duplicated: 1,
      overlapped: 1,
    });
    // Another attempt after a failure is none, and neither is another subscription.
    const again = [
      intent(1, { to: ['worker/', 'worker/x'] }),
      got(1),
      ended(1, 'worker.1', '', 'threw'),
      ...handled(1),
      ...handled(1, 'worker.1', 'x'),
    ];
    expect(judge([...again, receipt(1, 'delivered'), closed()]).text).toEqual([]);
  });

  it('a message that is not persistent is handled twice for one recipient, or not once in a shared name', () => {
    const transient = intent(1, { persistent: false, to: ['team/', 'team/x'] });
    const answer = [receipt(1, 'routed'), closed()];
    const channels = [...handled(1, 'team.1', 'x'), ...handled(1, 'team.2', 'x')];
    const verdict = judge([transient, ...channels, ...handled(1, 'team.1'), ...answer]);
    expect(verdict).toMatchObject({ delivered: 0, transient: { messages: 1, handlings: 3 }, text: [] });
    expect(wrongs(judge([transient, ...handled(1, 'team.1'), ...handled(1, 'team.2', '', true), ...answer]))).toEqual({
      duplicated: 1,
    });
    expect(judge([transient, ...answer]).text).toEqual([]);
  });

  it('messages of one sender are started out of order, in one process or over several', () => {
    const sent = [intent(1), intent(2), intent(3)];
    const answers = [receipt(1, 'delivered'), receipt(2, 'delivered'), receipt(3, 'delivered'), closed()];
    expect(wrongs(judge([...sent, ...handled(2), ...handled(1), ...handled(3), ...answers]))).toEqual({
      outOfOrder: 1,
    });
    const second = [...handled(2, 'worker.2'), ...handled(3, 'worker.2')];
    expect(
      wrongs(judge([...sent, ...handled(3), ...handled(1, 'worker.2'), ...handled(2, 'worker.2'), ...answers])),
    ).toEqual({ outOfOrder: 2 });
    // A new process begins again with what was not acknowledged, and each process has its own order.
    const again = [got(1, 'worker.2', { redelivered: true }), ended(1, 'worker.2')];
    expect(judge([...sent, ...handled(1), ...again, ...second, ...answers]).text).toEqual([]);
    const wrongAgain = [
      got(2, 'worker.2', { redelivered: true }),
      ended(2, 'worker.2'),
      ...again,
      ...handled(3, 'worker.2'),
    ];
    expect(wrongs(judge([...sent, ...handled(1), ...handled(2), ...wrongAgain, ...answers]))).toEqual({
      outOfOrder: 1,
    });
  });

  it('a failed message does not hold back its subscription', () => {
    const steps = [intent(1), intent(2), got(1), ended(1, 'worker.1', '', 'threw'), ...handled(2), ...handled(1)];
    expect(wrongs(judge([...steps, receipt(1, 'delivered'), receipt(2, 'delivered'), closed()]))).toEqual({
      outOfOrder: 1,
    });
  });

  it('no order is asked of handlers that run at the same time, of shared names and of other senders', () => {
    const sent = [1, 2].map(n => intent(n, { to: ['worker/fast', 'team/'] }));
    const worker = [...handled(2, 'worker.1', 'fast'), ...handled(1, 'worker.1', 'fast')];
    const steps = [...sent, ...worker, ...handled(2, 'team.1'), ...handled(1, 'team.1')];
    expect(judge([...steps, receipt(1, 'delivered'), receipt(2, 'delivered'), closed()]).text).toEqual([]);
    const other = [intent(1, {}, 'sender.2'), got(2), ended(2), got(1, 'worker.1', { key: 'sender.2:1' })];
    expect(judge([intent(1), intent(2), ...handled(1), ...other]).text).toEqual([]);
  });

  it('something arrives that nobody sent, that was not sent so, or not to whom it came', () => {
    expect(wrongs(judge([...handled(1)]))).toEqual({ phantom: 1 });
    expect(wrongs(judge([intent(1), got(1, 'worker.1', { crc: 7 })]))).toEqual({ phantom: 1 });
    expect(wrongs(judge([intent(1), got(1, 'worker.1', { sub: 'x' })]))).toEqual({ phantom: 1 });
    expect(wrongs(judge([intent(1), ...handled(1, 'other.1')]))).toEqual({ phantom: 1 });
  });

  it('what was said to have failed arrives', () => {
    expect(wrongs(judge([brief(1), receipt(1, 'stored'), notice(1), ...handled(1), closed()]))).toEqual({
      contradicted: 1,
    });
    expect(wrongs(judge([intent(1), receipt(1, 'undelivered'), got(1), closed()]))).toEqual({ contradicted: 1 });
    expect(
      wrongs(judge([intent(1), ['sender.1', { k: 'refused', n: 1, code: 'outbox-full' }], ...handled(1), closed()])),
    ).toEqual({ contradicted: 1 });
    // With attempts it may have arrived; so may what was rejected for another reason.
    const doubtful = notice(1, { attempts: 1, target: { client: 'other', channel: 'x' }, reason: 'dropped' });
    const to = ['worker/', 'other/', 'other/x'];
    const transient = [intent(1, { to, persistent: false }), ...handled(1), receipt(1, 'undelivered')];
    expect(judge([...transient, doubtful, closed()]).text).toEqual([]);
    expect(wrongs(judge([...transient, closed()]))).toEqual({ contradicted: 1 });
    expect(judge([intent(1), receipt(1, 'stored'), notice(1, { attempts: 1 }), ...handled(1), closed()]).text).toEqual(
      [],
    );
    const left: Step = ['sender.1', { k: 'refused', n: 1, code: 'closed' }];
    expect(judge([intent(1), left, ...handled(1), closed()], { drained: false }).text).toEqual([]);
    // Who leaves after the drain has its answers.
    expect(wrongs(judge([intent(1), left, ...handled(1), closed()]))).toEqual({ unanswered: 1 });
    expect(wrongs(judge([intent(1), left, closed()]))).toEqual({ unanswered: 1 });
  });

  it('a receipt says delivered before the last recipient has ended', () => {
    const to = ['worker/', 'other/'];
    const early = [intent(1, { to }), ...handled(1), receipt(1, 'delivered'), ...handled(1, 'other.1'), closed()];
    expect(wrongs(judge(early))).toEqual({ premature: 1 });
  });

  it('a second process handles a message without being told that it may not be the first', () => {
    const killed = [intent(1), receipt(1, 'stored'), got(1)];
    expect(wrongs(judge([...killed, ...handled(1, 'worker.2'), closed()]))).toEqual({ unmarked: 1 });
    expect(judge([...killed, ...handled(1, 'worker.2', '', true), closed()])).toMatchObject({
      redelivered: 1,
      text: [],
    });
    const shared = [
      intent(1, { to: ['team/', 'team/x'] }),
      ...handled(1, 'team.1'),
      ...handled(1, 'team.1', 'x'),
      receipt(1, 'delivered'),
    ];
    expect(wrongs(judge([...shared, ...handled(1, 'team.2'), closed()]))).toEqual({ unmarked: 1 });
    // Each process of a shared name has its own copy of a channel's.
    expect(judge([...shared, ...handled(1, 'team.2', 'x'), closed()]).text).toEqual([]);
  });

  it('a living process of a shared name has no copy of a channel’s message', () => {
    const steps = [
      online('team.1'),
      online('team.2'),
      intent(1, { to: ['team/x'] }),
      ...handled(1, 'team.1', 'x'),
      receipt(1, 'delivered'),
      closed(),
    ];
    expect(judge([...steps, closed('team.1')]).text).toEqual([]);
    expect(wrongs(judge([...steps, closed('team.1'), closed('team.2')]))).toEqual({ lost: 1 });
  });

  it('something is handled that has expired', () => {
    const pause = Array.from({ length: 200 }, () => online('other.1'));
    const late = [intent(1, { ttl: 50 }), ...pause, ...handled(1), receipt(1, 'stored'), closed()];
    expect(wrongs(judge(late))).toEqual({ late: 1 });
    expect(judge(late, { expirySlack: 200 }).text).toEqual([]);
  });

  it('a message fails for a reason that the scenario does not give', () => {
    const steps = [brief(1), receipt(1, 'stored'), notice(1), closed()];
    expect(judge(steps, { reasons: ['expired'] }).text).toEqual([]);
    expect(wrongs(judge(steps, { reasons: ['queue-full'] }))).toEqual({ failed: 1 });
  });

  it('what was safe fails because there is no room for it', () => {
    const steps = [intent(1), receipt(1, 'stored'), notice(1, { reason: 'queue-full' }), closed()];
    expect(wrongs(judge(steps))).toEqual({ failed: 1 });
    const [, ...others] = steps;
    expect(wrongs(judge([intent(1, { to: ['worker/', 'other/'] }), ...handled(1, 'other.1'), ...others]))).toEqual({});
  });

  it('a message is said to have expired that has no time to live, or has some left', () => {
    for (const more of [{}, { ttl: 3_600_000 }])
      expect(wrongs(judge([intent(1, more), receipt(1, 'stored'), notice(1), closed()]))).toEqual({ failed: 1 });
  });

  it('a message is started before the one before it has ended, in one process and subscription', () => {
    const sent = [1, 2].map(n => intent(n, { to: ['worker/', 'worker/x', 'worker/fast'] }));
    const both = (sub: string): Step[] => [got(1, 'worker.1', { sub }), got(2, 'worker.1', { sub })];
    const ends = (sub: string): Step[] => [ended(1, 'worker.1', sub), ended(2, 'worker.1', sub)];
    const rest = [receipt(1, 'delivered'), receipt(2, 'delivered'), closed()];
    const fast = [...both('fast'), ...ends('fast')];
    const own = [...handled(1), ...handled(2)];
    const steps = [...sent, ...own, ...fast, ...both('x'), ...ends('x'), ...rest];
    expect(wrongs(judge(steps))).toEqual({ overlapped: 1 });
    // Another subscription does not wait, and neither does another process.
    const mixed = [got(1), ...handled(1, 'worker.1', 'x'), ended(1), ...handled(2), ...handled(2, 'worker.1', 'x')];
    expect(judge([...sent, ...mixed, ...fast, ...rest]).text).toEqual([]);
  });

  it('a process of a shared name has its copies of a channel’s messages out of order, unmarked', () => {
    const sent = [1, 2].map(n => intent(n, { to: ['team/x'] }));
    const rest = [receipt(1, 'delivered'), receipt(2, 'delivered'), closed()];
    const late = handled(1, 'team.1', 'x', true);
    expect(judge([online('team.1'), ...sent, ...handled(2, 'team.1', 'x'), ...late, ...rest]).text).toEqual([]);
    const wrong = [...handled(2, 'team.1', 'x'), ...handled(1, 'team.1', 'x')];
    expect(wrongs(judge([online('team.1'), ...sent, ...wrong, ...rest]))).toEqual({ outOfOrder: 1 });
    // What was sent before it came is what others have left.
    expect(judge([...sent, online('team.1'), ...wrong, ...rest]).text).toEqual([]);
  });

  it('a receipt says what cannot be', () => {
    const followed = intent(1, { until: 'delivered' });
    expect(wrongs(judge([followed, receipt(1, 'stored'), ...handled(1), closed()]))).toEqual({ unanswered: 1 });
    expect(wrongs(judge([intent(1), receipt(1, 'routed'), ...handled(1), closed()]))).toEqual({ unanswered: 1 });
    expect(wrongs(judge([intent(1, { persistent: false }), receipt(1, 'stored'), ...handled(1), closed()]))).toEqual({
      unanswered: 1,
    });
  });
});

describe('histories', () => {
  const BEGIN = '{"k":"sender","name":"sender","process":"sender.1","t":0}\n';

  it('are read while they are written, without a line that is torn', async () => {
    const folder = await temporaryFolder();
    const path = join(folder, 'sender.1.jsonl');
    writeFileSync(path, `${BEGIN}{"k":"clo`);
    mkdirSync(join(folder, 'sender.1.jsonl.log'));
    const all = new Histories(folder);
    expect([...all.read()]).toMatchObject([{ process: 'sender.1', record: { k: 'sender' } }]);
    expect([...all.read()]).toEqual([]);
    appendFileSync(path, 'sed","t":1}\n{"k"');
    expect([...all.read()]).toMatchObject([{ record: { k: 'closed', t: 1 } }]);
    expect(all.all).toHaveLength(1);
    expect(all.all[0]).toHaveLength(2);
  });

  it('that hold something else are not passed over', async () => {
    const folder = await temporaryFolder();
    writeFileSync(join(folder, 'sender.1.jsonl'), `${BEGIN}nonsense\n`);
    expect(() => [...new Histories(folder).read()]).toThrow('no record: nonsense');
  });
});
