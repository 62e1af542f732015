// The STS service as others write it: socket.io on Node.
//
// Prints `listening PORT`, serves until its standard input ends. Options: largest message in bytes,
// and `refuse` for a middleware that lets nobody in.
const { Server } = require('socket.io');
const http = require('http').createServer();
const [limit, refuse] = process.argv.slice(2);
const io = new Server(http, { maxHttpBufferSize: Number(limit) });
if (refuse) io.use((socket, next) => next(new Error('not today')));
io.on('connection', (socket) => {
  socket.on('stream:init', (init) => {
    socket.emit('stream:ready', {
      stream_id: init.stream_id, session_id: socket.id, max_inflight: init.max_inflight,
      capabilities: { batch_processing: false, async_delivery: true },
    });
  });
  socket.on('fragment:data', (data) => {
    socket.emit('fragment:ack', { fragment_id: data.fragment_id, status: 'queued' });
    // Bytes, not base64: socket.io sends them as a binary attachment.
    socket.emit('fragment:processed', {
      fragment_id: data.fragment_id, stream_id: data.stream_id, sequence_number: data.sequence_number,
      status: 'success', processing_time_ms: 1.5,
      dubbed_audio: { ...data.audio, data_base64: Buffer.from(data.audio.data_base64, 'base64') },
    });
  });
});
http.listen(0, '127.0.0.1', () => console.log('listening', http.address().port));
process.stdin.on('end', () => process.exit(0)).resume();
