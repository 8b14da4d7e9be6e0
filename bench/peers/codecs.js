// How bodies are written: as JSON, which everybody does, and as msgpack, which Broadcast does.
import { Packr } from 'msgpackr';

const packr = new Packr({ useRecords: false, variableMapSize: true });

export const CODECS = {
  json: { encode: data => Buffer.from(JSON.stringify(data)), decode: bytes => JSON.parse(bytes.toString()) },
  msgpack: { encode: data => packr.pack(data), decode: bytes => packr.unpack(bytes) },
};
