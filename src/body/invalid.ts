import { BroadcastError } from '../errors.js';

export function invalid(text: string, cause?: unknown): BroadcastError {
  return new BroadcastError('body-invalid', `the body of the message cannot be decoded: ${text}`, { cause });
}
