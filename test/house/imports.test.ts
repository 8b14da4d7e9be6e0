/** The layers of the source: which module may import which. The rules are data in scripts/layers.js. */
import { describe, expect, it } from 'vitest';
import { clockViolations, cycles, importGraph, layerOf, LAYERS, violations } from '../../scripts/layers.js';

const graph = importGraph();

describe('imports', () => {
  it('are seen by the parser', () => {
    const edges = [...graph.values()].flatMap(({ internal }) => internal);
    expect(graph.size).toBeGreaterThan(50);
    expect(edges.length).toBeGreaterThan(200);
    // A type-only import is one as well.
    expect(graph.get('engine/engine.ts')?.internal).toContain('clock.ts');
  });

  it('put every module into a layer, and leave no layer empty', () => {
    const used = new Set([...graph.keys()].map(module => layerOf(module)?.name));
    expect([...used].sort()).toEqual(LAYERS.map(({ name }) => name).sort());
  });

  it('run downwards only', () => {
    expect(violations(graph)).toEqual([]);
    // The rules themselves have an order: a layer imports those that stand above it in the table.
    LAYERS.forEach(({ name, imports }, position) => {
      const above = LAYERS.slice(0, position).map(layer => layer.name);
      expect(above, name).toEqual(expect.arrayContaining([...imports]));
    });
  });

  it('have no cycles, types included', () => {
    expect(cycles(graph)).toEqual([]);
  });

  it('leave the message without any', () => {
    expect(graph.get('message.ts')).toMatchObject({ internal: [], external: [] });
  });

  it('leave protocol and broker without sockets and files, and client and server without each other', () => {
    for (const [module, { internal, external }] of graph) {
      const [layer] = module.split('/');
      if (layer === 'protocol' || layer === 'broker') expect(external.join(), module).not.toMatch(/net|fs|tls|http/);
      if (layer === 'broker')
        expect(internal.join(), module).not.toMatch(/protocol\/|transport\/|engine\/(?!engine\.ts)/);
      if (layer === 'client') expect(internal.join(), module).not.toMatch(/server\/|broker\//);
      if (layer === 'server') expect(internal.join(), module).not.toMatch(/client\//);
    }
  });
});

describe('a rule that is broken', () => {
  const file = graph.get('clock.ts')!.file;
  const withModule = (module: string, internal: string[], external: string[] = []) =>
    new Map([...graph, [module, { internal, external, file }] as const]);

  it('is named with both layers', () => {
    expect(violations(withModule('broker/extra.ts', ['protocol/bytes.ts']))).toEqual([
      'broker/extra.ts (broker) imports protocol/bytes.ts (protocol)',
    ]);
  });

  it('is seen in modules of Node, too', () => {
    expect(violations(withModule('protocol/extra.ts', [], ['node:net']))).toEqual([
      'protocol/extra.ts (protocol) imports node:net',
    ]);
  });

  it('is seen as a cycle', () => {
    expect(cycles(withModule('message.ts', ['errors.ts', 'message.ts']))).toContainEqual(['message.ts']);
    expect(cycles(withModule('errors.ts', ['names.ts']))).toEqual([['errors.ts', 'names.ts']]);
  });
});

describe('time', () => {
  it('is taken from the clock everywhere but in clock.ts and the command line', () => {
    expect(clockViolations(graph)).toEqual([]);
  });
});
