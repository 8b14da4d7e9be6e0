/** How large the items of a stored batch are, as compactly as can be: usually all are alike. */
import { ITEM_HEADER, itemOffsets, type Bytes } from '../batch.js';

/** The size of every item when they are alike, otherwise where each one starts, and the end. */
export type ItemSizes = number | Uint32Array;

export function itemSizes(items: Bytes, count: number): ItemSizes {
  const size = ITEM_HEADER + items.readUInt32LE(0);
  if (size * count !== items.length) return itemOffsets(items, count);
  for (let at = size; at < items.length; at += size) {
    if (items.readUInt32LE(at) !== size - ITEM_HEADER) return itemOffsets(items, count);
  }
  return size;
}

/** Bytes of some of the items. */
export function sizeOfItems(sizes: ItemSizes, offset: number, count: number): number {
  if (typeof sizes === 'number') return sizes * count;
  return (sizes[offset + count] as number) - (sizes[offset] as number);
}
