// Starts @modelcontextprotocol/server-everything on a free port of 127.0.0.1 and prints that port.
//   node everything.mjs PATH/OF/server-everything/dist/transports/streamableHttp.js
import './bind-loopback.mjs';
import diagnostics from 'node:diagnostics_channel';

// Its dynamic resources carry the time of day. With a fixed one two runs give equal results.
Date.prototype.toLocaleTimeString = () => '12:00:00 PM';

diagnostics.subscribe('tracing:net.server.listen:asyncEnd', ({ server }) =>
  console.log(`listening on http://127.0.0.1:${server.address().port}`));
process.env.PORT = '0';
await import(process.argv[2]);
