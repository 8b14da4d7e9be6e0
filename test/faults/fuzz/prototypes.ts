/** Whether the prototypes that every program shares are as they were when this module was loaded. */
const SHARED: readonly object[] = [
  Object.prototype,
  Array.prototype,
  Function.prototype,
  String.prototype,
  Number.prototype,
  Map.prototype,
  Set.prototype,
  Date.prototype,
  RegExp.prototype,
  Error.prototype,
  Promise.prototype,
  Uint8Array.prototype,
  Buffer.prototype,
  Object,
  Array,
  Error,
];

const known = SHARED.map(shared => Object.getOwnPropertyDescriptors(shared) as Record<PropertyKey, PropertyDescriptor>);

/** Throws when one of them has got, lost or changed a property. */
export function checkPrototypes(): void {
  SHARED.forEach((shared, i) => {
    const before = known[i] as Record<PropertyKey, PropertyDescriptor>;
    const keys = Reflect.ownKeys(shared);
    if (keys.length !== Reflect.ownKeys(before).length) throw changed(keys.filter(key => !Object.hasOwn(before, key)));
    for (const key of keys) {
      const now = Object.getOwnPropertyDescriptor(shared, key) as PropertyDescriptor;
      const then = before[key];
      // What the fuzzer's own bookkeeping changes is a number.
      if (typeof now.value === 'number' && typeof then?.value === 'number') continue;
      if (now.value !== then?.value || now.get !== then?.get || now.set !== then?.set) throw changed([key]);
    }
  });
}

function changed(keys: readonly PropertyKey[]): Error {
  return new Error(`a shared prototype was changed: ${keys.map(String).join(', ')}`);
}
