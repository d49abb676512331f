package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.List;
import java.util.Map;
import org.apache.rocketmq.common.message.Message;
import org.junit.jupiter.api.Test;

/** SIGTERM and a new start on the same data. */
class RestartTest extends OutageTest {
    @Override
    Map<String, String> settings() {
        return Map.of();
    }

    @Test
    void a_restart_under_load_loses_and_doubles_nothing_and_consumers_go_on() throws Exception {
        String topic = createTopic(QUEUES);
        String group = unique("group");
        Received received = startConsumer(group, topic);
        startSending(topic);
        awaitAcknowledged(500);
        server().stop();
        server().start();
        awaitAcknowledged(500);
        stopSending();
        awaitConsumed(received);
        checkStored(topic);
    }

    @Test
    void topics_offsets_keys_and_delayed_messages_outlive_a_restart() throws Exception {
        String topic = createTopic(3);
        String group = unique("group");
        var producer = producer();
        for (int i = 0; i < 10; i++) {
            producer.send(new Message(topic, "tag", "key" + i, bytes("m" + i)));
        }
        var consumer = newConsumer(group, topic);
        collect(consumer).await(10);
        consumer.shutdown();
        await("the commits", () -> committed(group, topic) == 10);
        Message delayed = message(topic, "delayed");
        delayed.setDelayTimeLevel(2);
        producer.send(delayed);

        server().stop();
        server().start();

        assertEquals(3, admin().examineTopicRouteInfo(topic).getQueueDatas().get(0).getWriteQueueNums());
        assertEquals(10, committed(group, topic));
        await("the key in the index", () -> admin().queryMessage(topic, "key7", 32,
            0, System.currentTimeMillis() + 60_000).getMessageList().size() == 1);
        Received received = collect(newConsumer(group, topic));
        received.await(1);
        assertEquals(List.of("delayed"), received.bodies());
    }
}
