/** Where a server listens or is found: `host` and `port`, or the path of a Unix socket. */
import type { Endpoint } from '../config.js';
import { BroadcastError } from '../errors.js';
import { show } from '../names.js';

export type Address = { readonly host: string; readonly port: number } | { readonly path: string };

const DEFAULT_HOST = 'localhost';
const DEFAULT_PORT = 9000;
/** What a Unix socket's address has room for on Linux, in bytes. */
const MAX_PATH = 107;
const HOST = /^[^\s:/?#@[\]\\]+$/;
const IPV6 = /^[0-9a-f:.]+(?:%[\w.-]+)?$/i;

/** Reads an endpoint in any of the forms that options take. Throws `invalid-option`. */
export function parseEndpoint(endpoint: Endpoint | string): Address {
  if (typeof endpoint === 'string') return parseUrl(endpoint);
  if (endpoint.url !== undefined) return parseUrl(endpoint.url);
  const { host = DEFAULT_HOST, port = DEFAULT_PORT } = endpoint;
  return { host: checkHost(host.replace(/^\[(.*)\]$/, '$1'), host), port: checkPort(port, port) };
}

function parseUrl(url: string): Address {
  const scheme = /^([a-z][a-z0-9+.-]*):(?!\d+$)/i.exec(url)?.[1]?.toLowerCase();
  switch (scheme) {
    case 'tcp':
      return parseHostPort(url.replace(/^tcp:(?:\/\/)?/i, '').replace(/\/$/, ''), url);
    case 'unix':
      return checkPath(url.slice('unix:'.length).replace(/^\/+/, '/'), url);
    case 'tls':
      // The place for TLS: an address with `secure`, once it is there.
      throw invalid(url, 'tls is not available yet; use tcp:// within a trusted network, or a tunnel');
    case undefined:
      if (/^\.{0,2}\//.test(url)) return checkPath(url, url);
      return parseHostPort(url, url);
    default:
      throw invalid(url, `the scheme ${show(scheme)} is not known; write tcp://host:port or unix:/path`);
  }
}

function parseHostPort(text: string, url: string): Address {
  const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,6}))?$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || /^\d+$/.test(host)) {
    throw invalid(url, 'it is not an address; write tcp://host:port, unix:/path, or a path that begins with / or ./');
  }
  return { host: checkHost(host, url), port: checkPort(Number(match?.[3] ?? DEFAULT_PORT), url) };
}

function checkHost(host: string, given: unknown): string {
  if (host.includes(':') ? IPV6.test(host) : HOST.test(host)) return host;
  throw invalid(given, `the host ${show(host)} is neither a name nor an address`);
}

function checkPort(port: number, given: unknown): number {
  if (Number.isInteger(port) && port >= 0 && port <= 65_535) return port;
  throw invalid(given, 'a port is a whole number from 0 to 65535');
}

function checkPath(path: string, url: string): Address {
  if (path === '' || path.endsWith('/')) throw invalid(url, 'it names no socket; write unix:/path/to/socket');
  if (path.includes('\0')) throw invalid(url, 'a path has no NUL');
  if (Buffer.byteLength(path) > MAX_PATH) {
    throw invalid(url, `the path of a Unix socket has room for ${String(MAX_PATH)} bytes; choose a shorter one`);
  }
  return { path };
}

function invalid(given: unknown, text: string): BroadcastError {
  return new BroadcastError('invalid-option', `${show(given)}: ${text}`);
}

/** For texts: `host:port`, or the path. `parseEndpoint` reads it again. */
export function formatAddress(address: Address): string {
  if ('path' in address) return address.path;
  return address.host.includes(':')
    ? `[${address.host}]:${String(address.port)}`
    : `${address.host}:${String(address.port)}`;
}
