/** Every frame but MESSAGES, in one place: for each an interface, `encodeX` and `decodeX`, pure and strict (2.3). */
export { cutText } from './fields.js';
export * from './handshake.js';
export * from './subscriptions.js';
export * from './deliveries.js';
export * from './control.js';
