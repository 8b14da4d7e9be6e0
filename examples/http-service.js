// A Broadcast server inside an HTTP service: one process, two ports. Run: node examples/http-service.js
//
//   POST /orders     the body, JSON, goes to the channel `orders`; 202 once it is safe, 503 when it is not
//   GET  /health     what the server holds
//
// SIGTERM ends it in order: no new requests, no message that was accepted is lost.
import { createServer } from 'node:http';
import { BroadcastMessage, BroadcastTcpServer } from '@alien-worlds/aw-broadcast';

const broadcast = new BroadcastTcpServer({
  port: Number(process.env.BROADCAST_PORT ?? 9000),
  dataDir: process.env.BROADCAST_DATA_DIR ?? './data/http-service',
});

async function readJson(request) {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) {
    text += chunk;
    if (text.length > 100_000) throw new SyntaxError('too large');
  }
  return JSON.parse(text);
}

async function takeOrder(request) {
  const order = await readJson(request);
  const { id, status } = await broadcast.sendMessage(BroadcastMessage.createChannelMessage('orders', order));
  // `undelivered`: nobody has it and nobody will, for example because the queue is full. The caller tries again.
  return status === 'undelivered' ? [503, { id, status }] : [202, { id, status }];
}

const routes = {
  'POST /orders': takeOrder,
  'GET /health': () => [200, broadcast.stats()],
};

const http = createServer(async (request, response) => {
  const route = routes[`${request.method} ${request.url}`];
  const [code, body] = await Promise.resolve(route === undefined ? [404, {}] : route(request)).catch(error => [
    error instanceof SyntaxError ? 400 : 503,
    { error: error.code ?? error.message },
  ]);
  response.writeHead(code, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
});

await broadcast.start();
http.listen(Number(process.env.HTTP_PORT ?? 8080), '127.0.0.1', () => {
  console.log(`http on ${http.address().port}, broadcast on ${broadcast.address.port}`);
});

process.once('SIGTERM', () => http.close(() => broadcast.stop()));
