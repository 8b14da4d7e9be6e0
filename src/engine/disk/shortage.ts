/** Errors of the system: what has run out for now, so that it is worth while to wait and try again, and what is final. */
const SPACE = new Set<string | undefined>(['ENOSPC', 'EDQUOT']);
const DESCRIPTORS = new Set<string | undefined>(['EMFILE', 'ENFILE']);

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;

/** No file could be opened, so that nothing was done to it. */
function lacksDescriptors(error: unknown): boolean {
  return DESCRIPTORS.has(codeOf(error));
}

/** Space or descriptors. */
export function isShortage(error: unknown): boolean {
  return SPACE.has(codeOf(error)) || lacksDescriptors(error);
}

/** What a sync should have made durable may be lost, whatever a later one says. */
export class SyncFailed extends Error {}

/** A sync that fails is not tried again, also when it says that space has run out; without a descriptor none was tried. */
export async function forGood(sync: Promise<void>): Promise<void> {
  try {
    await sync;
  } catch (error) {
    if (lacksDescriptors(error)) throw error;
    throw new SyncFailed((error as Error).message, { cause: error });
  }
}
