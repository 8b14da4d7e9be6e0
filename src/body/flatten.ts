/**
 * Values to the table form of the body codec: any value that structured clone takes, as a table of nodes that refer to
 * each other by index, so that shared and cyclic references, depth and rare types need no special case
 * (docs/body-format.md, 3). Works on lists, not by recursion: depth costs heap, not stack.
 */
import { types } from 'node:util';
import { BroadcastError } from '../errors.js';
import { show } from '../names.js';
import { ERRORS, MAX_PROPERTY_ESCAPES, NODE, propertyEscapes, VIEWS, type Node } from './nodes.js';

/** Where a value was found, for error texts. */
interface Place {
  readonly parent: Place | undefined;
  readonly key: string;
}

function pathOf(place: Place | undefined): string {
  const keys: string[] = [];
  for (let at = place; at !== undefined && keys.length < 20; at = at.parent) keys.unshift(at.key);
  return `data${keys.map(key => (/^\[/.test(key) ? key : /^[\w$]+$/.test(key) ? `.${key}` : `[${show(key)}]`)).join('')}`;
}

function refuse(what: string, place: Place | undefined, cause?: unknown): BroadcastError {
  return new BroadcastError('data-not-cloneable', `${pathOf(place)} ${what} and cannot be sent`, { cause });
}

interface Pending {
  readonly value: object;
  readonly node: unknown[];
  readonly place: Place | undefined;
}

class Flattener {
  readonly nodes: Node[] = [];
  readonly #seen = new Map<object, number>();
  readonly #pending: Pending[] = [];

  flatten(root: unknown): Node[] {
    this.#add(root, undefined);
    for (let next = this.#pending.pop(); next !== undefined; next = this.#pending.pop()) this.#fill(next);
    return this.nodes;
  }

  /** The index of a value's node. */
  #add(value: unknown, place: Place | undefined): number {
    if (typeof value === 'object' && value !== null) {
      const known = this.#seen.get(value);
      if (known !== undefined) return known;
      const index = this.nodes.length;
      const node: unknown[] = [];
      this.nodes.push(node);
      this.#seen.set(value, index);
      this.#pending.push({ value, node, place });
      return index;
    }
    return this.nodes.push(primitiveNode(value, place)) - 1;
  }

  #fill({ value, node, place }: Pending): void {
    try {
      this.#fillNode(value, node, place);
    } catch (error) {
      if (error instanceof BroadcastError) throw error;
      throw refuse('cannot be read', place, error); // a proxy whose handler throws, or was revoked
    }
  }

  /** What a subclass has overridden is not asked: like structured clone this looks at what a value is. */
  #fillNode(value: object, node: unknown[], place: Place | undefined): void {
    if (Array.isArray(value)) this.#fillArray(value, node, place);
    else if (types.isDate(value)) {
      const time = Date.prototype.getTime.call(value);
      node.push(NODE.DATE, Number.isNaN(time) ? null : time);
    } else if (types.isMap(value)) this.#fillMap(value, node, place);
    else if (types.isSet(value)) {
      node.push(NODE.SET);
      let i = 0;
      for (const member of [...SET_VALUES.call(value)])
        node.push(this.#add(member, { parent: place, key: `[member ${String(i++)}]` }));
    } else if (types.isRegExp(value)) fillRegExp(value, node, place);
    else if (types.isNativeError(value) || value instanceof Error) this.#fillError(value, node, place);
    else if (Buffer.isBuffer(value)) node.push(NODE.BUFFER, Buffer.from(value));
    else if (ArrayBuffer.isView(value)) fillView(value, node, place);
    else if (types.isArrayBuffer(value)) node.push(NODE.ARRAY_BUFFER, Buffer.from(new Uint8Array(value)));
    else if (types.isBoxedPrimitive(value)) {
      if (types.isSymbolObject(value)) throw refuse('is a symbol', place);
      node.push(NODE.BOXED, this.#add(unbox(value), place));
    } else if (isUncloneable(value)) throw refuse(`is a ${Object.prototype.toString.call(value).slice(8, -1)}`, place);
    else this.#fillObject(value, node, place);
  }

  #fillMap(map: Map<unknown, unknown>, node: unknown[], place: Place | undefined): void {
    node.push(NODE.MAP);
    let i = 0;
    for (const [key, member] of [...MAP_ENTRIES.call(map)]) {
      node.push(
        this.#add(key, { parent: place, key: `[key ${String(i)}]` }),
        this.#add(member, { parent: place, key: `[value ${String(i++)}]` }),
      );
    }
  }

  #fillArray(array: unknown[], node: unknown[], place: Place | undefined): void {
    const keys = Object.keys(array);
    if (keys.length === array.length && (keys.length === 0 || keys[keys.length - 1] === String(array.length - 1))) {
      node.push(NODE.ARRAY);
      for (let i = 0; i < array.length; i++) node.push(this.#add(array[i], { parent: place, key: `[${String(i)}]` }));
      return;
    }
    node.push(NODE.SPARSE, array.length);
    for (const key of keys) this.#member(array, key, node, place);
  }

  #fillObject(value: object, node: unknown[], place: Place | undefined): void {
    node.push(NODE.OBJECT);
    for (const key of Object.keys(value)) this.#member(value, key, node, place);
  }

  #member(value: object, key: string, node: unknown[], parent: Place | undefined): void {
    const place = { parent, key };
    let member: unknown;
    try {
      member = (value as Record<string, unknown>)[key];
    } catch (error) {
      throw refuse('has a getter that throws', place, error);
    }
    node.push(this.#key(key), this.#add(member, place));
  }

  /** A key: a string as it is, or one that UTF-8 cannot carry as a reference to its node. */
  #key(key: string): unknown {
    return (key as string & { isWellFormed(): boolean }).isWellFormed() ? key : this.#add(key, undefined);
  }

  #fillError(error: Error, node: unknown[], place: Place | undefined): void {
    const constructor =
      Object.keys(ERRORS).find(name => name !== 'Error' && error instanceof (ERRORS[name] as ErrorConstructor)) ??
      'Error';
    const aggregate = error instanceof AggregateError;
    node.push(NODE.ERROR, aggregate ? 'AggregateError' : constructor);
    const properties = ['name', 'message', 'stack', 'cause', 'code', ...(aggregate ? ['errors'] : [])];
    for (const key of properties) {
      if (key !== 'name' && !Object.hasOwn(error, key)) continue;
      this.#member(error, key, node, place);
    }
  }
}

const MAP_ENTRIES = Map.prototype.entries;
const SET_VALUES = Set.prototype.values;

function unbox(value: object): unknown {
  if (types.isNumberObject(value)) return Number.prototype.valueOf.call(value);
  if (types.isStringObject(value)) return String.prototype.valueOf.call(value);
  if (types.isBooleanObject(value)) return Boolean.prototype.valueOf.call(value);
  return BigInt.prototype.valueOf.call(value);
}

function fillRegExp(value: RegExp, node: unknown[], place: Place | undefined): void {
  const { source, flags } = value;
  if (propertyEscapes(source, flags) > MAX_PROPERTY_ESCAPES)
    throw refuse(`is a regular expression with more than ${String(MAX_PROPERTY_ESCAPES)} property escapes`, place);
  node.push(NODE.REGEXP, source, flags);
}

function primitiveNode(value: unknown, place: Place | undefined): Node {
  switch (typeof value) {
    case 'string':
      return (value as string & { isWellFormed(): boolean }).isWellFormed()
        ? value
        : [NODE.UTF16, Buffer.from(value, 'utf16le')];
    case 'number':
      return Object.is(value, -0) ? [NODE.MINUS_ZERO] : value;
    case 'bigint':
      return [NODE.BIGINT, value < 0n ? `-${(-value).toString(16)}` : value.toString(16)];
    case 'boolean':
      return value;
    case 'undefined':
      return [NODE.UNDEFINED];
    case 'function':
      throw refuse('is a function', place);
    case 'symbol':
      throw refuse('is a symbol', place);
    default:
      return null;
  }
}

function fillView(view: ArrayBufferView, node: unknown[], place: Place | undefined): void {
  const kind = Object.prototype.toString.call(view).slice(8, -1);
  if (!Object.hasOwn(VIEWS, kind)) throw refuse(`is a ${kind}`, place);
  node.push(NODE.VIEW, kind, Buffer.from(Buffer.from(view.buffer, view.byteOffset, view.byteLength)));
}

/** What structured clone refuses too: it has a life outside of its properties. */
function isUncloneable(value: object): boolean {
  return (
    types.isPromise(value) ||
    types.isWeakMap(value) ||
    types.isWeakSet(value) ||
    types.isProxy(value) ||
    types.isSharedArrayBuffer(value) ||
    types.isGeneratorObject(value) ||
    types.isModuleNamespaceObject(value) ||
    types.isExternal(value) ||
    value instanceof WeakRef
  );
}

/** The table for a value. Throws `data-not-cloneable` with the path of what cannot be sent. */
export function flatten(value: unknown): unknown[] {
  return new Flattener().flatten(value);
}
