package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.rebalance.AllocateMessageQueueAveragely;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.remoting.RPCHook;
import org.apache.rocketmq.remoting.protocol.RemotingCommand;
import org.apache.rocketmq.remoting.protocol.SerializeType;
import org.junit.jupiter.api.Test;

/** The same server by other ways than the usual one. */
class AccessTest extends Clients {
    private static final int COUNT = 20;

    /** What -Drocketmq.serialize.type=ROCKETMQ does, for one client. */
    private static final class BinaryHeaders implements RPCHook {
        /** How what was answered had been asked; Apache's server answers in JSON. */
        final Set<SerializeType> asked = ConcurrentHashMap.newKeySet();

        @Override
        public void doBeforeRequest(String remoteAddr, RemotingCommand request) {
            request.setSerializeTypeCurrentRPC(SerializeType.ROCKETMQ);
        }

        @Override
        public void doAfterResponse(String remoteAddr, RemotingCommand request, RemotingCommand response) {
            asked.add(request.getSerializeTypeCurrentRPC());
        }
    }

    @Test
    void binary_headers_carry_what_json_does() throws Exception {
        String topic = createTopic(2);
        BinaryHeaders headers = new BinaryHeaders();
        DefaultMQProducer producer = new DefaultMQProducer(unique("producers"), headers);
        // Consumers of the same instance name share a connection, and then one hook.
        producer.setInstanceName(unique("binary"));
        DefaultMQPushConsumer consumer =
            new DefaultMQPushConsumer(unique("group"), headers, new AllocateMessageQueueAveragely());
        consumer.setInstanceName(unique("binary"));
        exchange(topic, producer, consumer);
        assertEquals(Set.of(SerializeType.ROCKETMQ), headers.asked);
    }

    @Test
    void the_port_for_sends_of_old_clients_is_open() throws Exception {
        String topic = createTopic(2);
        DefaultMQProducer producer = new DefaultMQProducer(unique("producers"));
        producer.setVipChannelEnabled(true);
        producer.setInstanceName(unique("vip"));
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(unique("group"));
        consumer.setVipChannelEnabled(true);
        consumer.setInstanceName(unique("vip"));
        exchange(topic, producer, consumer);
    }

    /** Sends, some by each of the ways that differ in their requests, and receives it all. */
    private void exchange(String topic, DefaultMQProducer producer, DefaultMQPushConsumer consumer)
        throws Exception {
        configure(producer);
        configure(consumer);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe(topic, "*");
        try {
            Received received = collect(consumer);
            producer.start();
            for (int i = 0; i < COUNT; i++) {
                assertEquals(SendStatus.SEND_OK, producer.send(message(topic, "m" + i)).getSendStatus());
            }
            producer.send(List.of(message(topic, "b0"), message(topic, "b1")));
            received.await(COUNT + 2);
            List<String> sent = IntStream.range(0, COUNT).mapToObj(i -> "m" + i).toList();
            assertEquals(Stream.concat(sent.stream(), List.of("b0", "b1").stream()).sorted().toList(),
                received.sortedBodies());
            String group = consumer.getConsumerGroup();
            await("the offsets of " + group, () -> committed(group, topic) == COUNT + 2);
        } finally {
            producer.shutdown();
            consumer.shutdown();
        }
    }
}
