// Uses a broker through amqplib: `node clients.js URL PREFIX`; prints one line for each step.
const amqp = require("amqplib");
const assert = require("assert");
const [url, prefix] = process.argv.slice(2);

function once(emitter, event) {
  return new Promise((resolve) => emitter.once(event, resolve));
}

async function main() {
  const connection = await amqp.connect(url);
  connection.on("error", () => {}); // the test cuts the connection, below
  const channel = await connection.createConfirmChannel();
  const [queue, dead] = [`${prefix}.queue`, `${prefix}.dead`];
  await channel.assertQueue(dead, { durable: true });
  await channel.assertQueue(queue, {
    durable: true,
    deadLetterExchange: "",
    deadLetterRoutingKey: dead,
  });

  channel.sendToQueue(queue, Buffer.from("hello"), { persistent: true, headers: { mine: 1 } });
  await channel.waitForConfirms();
  console.log("confirm");

  const returned = once(channel, "return");
  channel.publish("", `${prefix}.nowhere`, Buffer.from("lost"), { mandatory: true });
  assert.equal((await returned).fields.replyCode, 312);
  console.log("return");

  await channel.prefetch(1);
  let give;
  const delivered = new Promise((resolve) => (give = resolve));
  const { consumerTag } = await channel.consume(queue, (message) => give(message));
  const message = await delivered;
  assert.equal(message.content.toString(), "hello");
  assert.equal(message.properties.headers.mine, 1);
  console.log("consume");

  channel.nack(message, false, false);
  await channel.cancel(consumerTag);
  let deadLetter = false;
  while (!deadLetter) deadLetter = await channel.get(dead, { noAck: true });
  assert.equal(deadLetter.properties.headers["x-death"][0].reason, "rejected");
  console.log("dead-letter");

  await assert.rejects(
    (async () => {
      const other = await connection.createChannel();
      other.on("error", () => {});
      await other.checkQueue(`${prefix}.nowhere`);
    })(),
    /404/,
  );
  console.log("error 404");

  // amqplib does not reconnect by itself
  const closed = once(connection, "close");
  console.log("waiting for the cut");
  process.stdin.resume();
  await closed;
  const again = await amqp.connect(url);
  const fresh = await again.createChannel();
  await fresh.checkQueue(queue);
  await again.close();
  console.log("reconnect");
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
