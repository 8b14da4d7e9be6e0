/** What can happen, as commands for fast-check: each chooses by its numbers among what there is when its turn comes. */
import fc from 'fast-check';
import type { Member, Outcome, Script } from './member.js';
import type { Shape } from './model.js';
import { CHANNELS, READERS, SUBSCRIPTIONS, WRITERS, type Scene } from './scene.js';
import type { End } from './world.js';

const MOST_MEMBERS = 6;

interface Step {
  readonly text: string;
  act(): unknown;
}

type Plan = (scene: Scene) => Step | undefined;

class Command implements fc.AsyncCommand<Scene, Scene> {
  readonly #plan: Plan;

  constructor(plan: Plan) {
    this.#plan = plan;
  }

  check(scene: Readonly<Scene>): boolean {
    return this.#plan(scene as Scene) !== undefined;
  }

  async run(_: Scene, scene: Scene): Promise<void> {
    const step = this.#plan(scene) as Step;
    scene.steps.push(step.text);
    await step.act();
    await scene.world.settle();
    scene.check();
  }

  /** The same command does one thing in one sequence and another in the next: the scene says what was done. */
  toString(): string {
    return '·';
  }
}

function pick<T>(list: readonly T[], number: number): T | undefined {
  return list[number % list.length];
}

const nat = fc.nat(1000);
const text = (parts: readonly string[]): string => parts.map(part => part || 'self').join('+') || 'nothing';

// ---- messages --------------------------------------------------------------------------------------------------------

const targets: fc.Arbitrary<Pick<Shape, 'channels' | 'clients'>> = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...CHANNELS).map(channel => ({ channels: [channel], clients: [] })) },
  { weight: 3, arbitrary: fc.constantFrom(...READERS).map(name => ({ channels: [], clients: [name] })) },
  { weight: 1, arbitrary: fc.constant({ channels: CHANNELS, clients: [] }) },
  { weight: 1, arbitrary: fc.subarray(READERS, { minLength: 2 }).map(clients => ({ channels: [], clients })) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom(...CHANNELS), fc.constantFrom(...READERS))
      .map(([channel, client]) => ({ channels: [channel], clients: [client] })),
  },
);

const shapes: fc.Arbitrary<Shape> = fc
  .tuple(
    targets,
    fc.oneof({ weight: 7, arbitrary: fc.constant('plain') }, fc.constantFrom('transient', 'followed', 'short')),
  )
  .map(([target, kind]) => ({
    ...target,
    persistent: kind !== 'transient',
    followed: kind === 'followed',
    ttl: kind === 'short' ? 3000 : undefined,
  }));

interface Burst {
  readonly who: number;
  readonly shape: Shape;
  readonly count: number;
}

const bursts: fc.Arbitrary<Burst> = fc.record({ who: nat, shape: shapes, count: fc.integer({ min: 1, max: 4 }) });

function nameOf({ channels, clients, persistent, ttl, followed }: Shape): string {
  const kind = `${persistent ? '' : 'transient '}${ttl === undefined ? '' : 'short-lived '}${followed ? 'followed ' : ''}`;
  return `${kind}${[...channels.map(channel => `/${channel}`), ...clients].join(' ')}`;
}

/** Messages that are sent, and what they are called. Who reads channels does not write to them. */
function send({ living, world }: Scene, { who, shape, count }: Burst): Step | undefined {
  const able = living.filter(({ name }) => shape.channels.length === 0 || WRITERS.includes(name));
  const member = pick(able, who);
  if (member === undefined) return undefined;
  return {
    text: `${member.label} sends ${count} to ${nameOf(shape)}`,
    act: () => {
      for (let i = 0; i < count; i++) world.send(member, shape);
    },
  };
}

const sending = bursts.map(burst => new Command(scene => send(scene, burst)));

/** Messages that are on their way when something else happens, so many turns later. */
interface Prelude {
  readonly bursts: readonly Burst[];
  readonly turns: number;
}

const preludes: fc.Arbitrary<Prelude> = fc.record({
  bursts: fc.array(bursts, { maxLength: 3 }),
  turns: fc.nat(12),
});

function behind({ bursts: all, turns }: Prelude, scene: Scene, step: Step): Step {
  const sends = all.flatMap(burst => send(scene, burst) ?? []);
  if (sends.length === 0) return step;
  return {
    text: `${sends.map(one => one.text).join(', ')}; ${turns} turns later ${step.text}`,
    act: async () => {
      for (const one of sends) one.act();
      await scene.world.turns(turns);
      await step.act();
    },
  };
}

// ---- clients ---------------------------------------------------------------------------------------------------------

const joining = fc
  .record({ name: fc.constantFrom(...READERS, ...WRITERS), subscriptions: fc.subarray(SUBSCRIPTIONS) })
  .map(
    ({ name, subscriptions }) =>
      new Command(({ living, world }) => {
        if (living.length >= MOST_MEMBERS) return undefined;
        const handled = READERS.includes(name) ? subscriptions : [];
        return { text: `another ${name} joins, handles ${text(handled)}`, act: () => world.join(name, handled) };
      }),
  );

const leaving = nat.map(
  who =>
    new Command(({ living, world }) => {
      const member = pick(living, who);
      return member && { text: `${member.label} closes`, act: () => world.close(member) };
    }),
);

const crashing = fc.record({ who: nat, isSeen: fc.boolean(), prelude: preludes }).map(
  ({ who, isSeen, prelude }) =>
    new Command(scene => {
      const member = pick(scene.living, who);
      if (member === undefined) return undefined;
      const step = {
        text: `${member.label} dies${isSeen ? '' : ', unseen'}`,
        act: () => scene.world.crash(member, isSeen),
      };
      return behind(prelude, scene, step);
    }),
);

const cutting = fc.record({ who: nat, prelude: preludes }).map(
  ({ who, prelude }) =>
    new Command(scene => {
      const member = pick(
        scene.living.filter(({ isOnline }) => isOnline),
        who,
      );
      if (member === undefined) return undefined;
      return behind(prelude, scene, { text: `${member.label} is cut off`, act: () => scene.world.lose(member) });
    }),
);

const returning = nat.map(
  who =>
    new Command(({ living, world }) => {
      const member = pick(
        living.filter(({ isOnline }) => !isOnline),
        who,
      );
      return member && { text: `${member.label} is back`, act: () => world.reconnect(member) };
    }),
);

const holding = fc.record({ who: nat, direction: fc.constantFrom('up' as const, 'down' as const) }).map(
  ({ who, direction }) =>
    new Command(({ living }) => {
      const member = pick(
        living.filter(({ isOnline }) => isOnline),
        who,
      );
      if (member === undefined) return undefined;
      const { line, label } = member;
      const isHeld = line.isHeld(direction);
      return {
        text: `what goes ${direction} at ${label} ${isHeld ? 'flows again' : 'is held back'}`,
        act: () => {
          if (isHeld) member.release(direction);
          else line.hold(direction);
        },
      };
    }),
);

// ---- handlers and subscriptions --------------------------------------------------------------------------------------

/** What is told while bytes are held back arrives when the model does not know. */
function able({ readers }: Scene): Member[] {
  return readers.filter(member => !member.isOnline || member.isClear);
}

const handling = fc.record({ who: nat, subscription: fc.constantFrom(...SUBSCRIPTIONS) }).map(
  ({ who, subscription }) =>
    new Command(scene => {
      const members = able(scene).filter(({ scripts }) => !scripts.has(subscription));
      const member = pick(members, who);
      if (member === undefined) return undefined;
      return {
        text: `${member.label} handles ${text([subscription])}`,
        act: () => {
          member.handle(subscription);
          if (member.isOnline) scene.model.declare(member, subscription);
        },
      };
    }),
);

function scriptOf(members: readonly Member[], number: number): { member: Member; script: Script } | undefined {
  const all = members.flatMap(member => [...member.scripts.values()].map(script => ({ member, script })));
  return pick(all, number);
}

const unhandling = nat.map(
  which =>
    new Command(scene => {
      const found = scriptOf(able(scene), which);
      if (found === undefined) return undefined;
      const { member, script } = found;
      return {
        text: `${member.label} takes its handler of ${text([script.subscription])} away`,
        act: () => {
          member.forget(script.subscription)?.remove();
          if (member.isOnline) scene.model.undeclare(member, script.subscription);
        },
      };
    }),
);

/**
 * While messages are on their way. When the server hears of it the model does not know, which matters where others of the
 * name have copies of their own.
 */
const replacing = fc.record({ which: nat, prelude: preludes, turns: fc.nat(3) }).map(
  ({ which, prelude, turns }) =>
    new Command(scene => {
      const { model, readers } = scene;
      const single = readers.filter(({ isClear, name }) => isClear && model.role(name).peers.size === 1);
      const found = scriptOf(single, which);
      if (found === undefined) return undefined;
      const { member, script } = found;
      const { subscription } = script;
      return behind(prelude, scene, {
        text: `${member.label} replaces its handler of ${text([subscription])}, which takes ${turns} turns`,
        act: async () => {
          member.forget(subscription)?.remove();
          model.undeclare(member, subscription);
          await scene.world.turns(turns);
          member.handle(subscription);
          model.declare(member, subscription);
        },
      });
    }),
);

const unsubscribing = fc.record({ who: nat, channel: fc.constantFrom(...CHANNELS) }).map(
  ({ who, channel }) =>
    new Command(({ readers, model }) => {
      const clear = readers.filter(({ isClear }) => isClear);
      const member = pick(clear, who);
      if (member === undefined) return undefined;
      return {
        text: `${member.label} unsubscribes from ${channel}`,
        act: () => {
          member.forget(channel);
          for (const script of member.loose) script.isEnded ||= script.subscription === channel;
          member.client.unsubscribe(channel);
          model.endSubscription(member.name, channel);
        },
      };
    }),
);

type Behaviour = 'hangs' | 'fails' | 'fails twice' | 'fails for good' | 'rejects' | 'works';

const scripting = fc
  .record({
    which: nat,
    how: fc.constantFrom<Behaviour>('hangs', 'hangs', 'fails', 'fails twice', 'fails for good', 'rejects', 'works'),
  })
  .map(
    ({ which, how }) =>
      new Command(({ living }) => {
        const found = scriptOf(living, which);
        if (found === undefined) return undefined;
        const { member, script } = found;
        return {
          text: `${member.label}'s handler of ${text([script.subscription])} ${how}`,
          act: () => {
            script.isHanging = how === 'hangs';
            script.failures = { fails: 1, 'fails twice': 2, 'fails for good': 3 }[how as string] ?? 0;
            script.isRejecting = how === 'rejects';
          },
        };
      }),
  );

const releasing = fc
  .record({ which: nat, outcome: fc.constantFrom<Outcome>('ends', 'ends', 'fails', 'rejects'), goesOn: fc.boolean() })
  .map(
    ({ which, outcome, goesOn }) =>
      new Command(({ living }) => {
        const all = living.flatMap(member => member.hanging.map(script => ({ member, script })));
        const found = pick(all, which);
        if (found === undefined) return undefined;
        const { member, script } = found;
        return {
          text: `#${script.hanging?.n} ${outcome} at ${member.label}${goesOn ? ', the next ones work' : ''}`,
          act: () => {
            if (goesOn) script.isHanging = false;
            script.hanging?.open(outcome);
          },
        };
      }),
  );

// ---- time, server, dead letters --------------------------------------------------------------------------------------

const passing = fc.constantFrom(30, 100, 1000, 4000, 31_000).map(
  ms =>
    new Command(scene => {
      // Who holds back for long is taken for dead; here it is cut off before.
      if (ms > 5000 && scene.living.some(({ line }) => line.isHeld('up') || line.isHeld('down'))) return undefined;
      return {
        text: `${ms} ms pass`,
        act: async () => {
          await scene.world.pass(ms);
          scene.check();
          if (ms >= 100) scene.checkReceipts();
        },
      };
    }),
);

const restarting = fc
  .record({ end: fc.constantFrom<End>('stopped', 'killed', 'power cut'), prelude: preludes, isBack: fc.boolean() })
  .map(
    ({ end, prelude, isBack }) =>
      new Command(scene => {
        const { world } = scene;
        const step = {
          text: `the server ends (${end}) and starts again${isBack ? ', everybody is back' : ''}`,
          act: async () => {
            await world.restart(end);
            if (!isBack) return;
            for (const member of scene.living) await world.reconnect(member);
          },
        };
        return behind(prelude, scene, step);
      }),
  );

const undertaking = fc.record({ which: nat, isRetried: fc.boolean() }).map(
  ({ which, isRetried }) =>
    new Command(scene => {
      const { model, world } = scene;
      const sure = [...model.dead]
        .filter(([key, isSure]) => isSure && (!isRetried || model.isOver(key)))
        .map(([key]) => key);
      const key = pick(sure, which);
      if (key === undefined) return undefined;
      return {
        text: `the dead letter ${key} is ${isRetried ? 'sent again' : 'dropped'}`,
        act: async () => {
          const name = key.split('/')[1] as string;
          const letter = (await scene.deadLetters(name)).find(other => other.key === key);
          if (letter === undefined) return model.fail(`the dead letter ${key} is not there`);
          model.dead.delete(key);
          if (isRetried) model.revives(key);
          const letters = world.server.deadLetters(name);
          return isRetried ? letters.retry(letter.id) : letters.drop(letter.id);
        },
      };
    }),
);

const calming = fc.constant(new Command(scene => ({ text: 'everything works for a while', act: () => scene.calm() })));

/** Commands, those several times that are to come often. */
export function commands(): fc.Arbitrary<fc.AsyncCommand<Scene, Scene>>[] {
  return [
    ...[joining, joining, joining, sending, sending, sending, sending, sending, sending],
    ...[scripting, scripting, releasing, releasing, handling, handling, unhandling, replacing],
    ...[cutting, cutting, returning, returning, returning, holding, crashing, leaving],
    ...[passing, passing, passing, restarting, unsubscribing, undertaking, calming],
  ];
}
