/** Where a server listens or is found: `host` and `port`, or the path of a Unix socket. */
import type { Endpoint } from '../config.js';
import { BroadcastError } from '../errors.js';

export type Address = { readonly host: string; readonly port: number } | { readonly path: string };

/** Reads an endpoint in any of the forms that options take. Throws `invalid-option`. */
export function parseEndpoint(endpoint: Endpoint | string): Address {
  if (typeof endpoint === 'string') return parseUrl(endpoint);
  if (endpoint.url !== undefined) return parseUrl(endpoint.url);
  return { host: endpoint.host ?? 'localhost', port: endpoint.port ?? 9000 };
}

function parseUrl(url: string): Address {
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(url)?.[1]?.toLowerCase();
  if (scheme === 'tls') {
    throw new BroadcastError('invalid-option', `${JSON.stringify(url)}: tls is not available yet; use tcp:// within a trusted network, or a tunnel`);
  }
  if (scheme === 'unix') {
    const path = url.slice(5).replace(/^\/\/(?=\/)/, '');
    if (path === '' || path === '//') throw new BroadcastError('invalid-option', `${JSON.stringify(url)} names no path; write unix:/path/to/socket`);
    return { path };
  }
  if (scheme === 'tcp') return parseHostPort(url.replace(/^tcp:(\/\/)?/i, '').replace(/\/$/, ''), url);
  if (url.startsWith('/') || url.startsWith('.')) return { path: url };
  if (/^(?:[^:/\s]+|\[[^\]]+\])(?::\d+)?$/.test(url)) return parseHostPort(url, url);
  throw new BroadcastError('invalid-option', `${JSON.stringify(url)} is not an address; write tcp://host:port, unix:/path, or a path that begins with / or ./`);
}

function parseHostPort(text: string, url: string): Address {
  const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(text);
  const port = Number(match?.[3] ?? 9000);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || port > 65535) {
    throw new BroadcastError('invalid-option', `${JSON.stringify(url)} is not an address; write tcp://host:port with a port up to 65535`);
  }
  return { host, port };
}

/** For texts: `host:port`, or the path. */
export function formatAddress(address: Address): string {
  if ('path' in address) return address.path;
  return address.host.includes(':') ? `[${address.host}]:${String(address.port)}` : `${address.host}:${String(address.port)}`;
}
