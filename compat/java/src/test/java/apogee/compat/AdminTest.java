package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.junit.jupiter.api.Test;

/** What operators ask a broker for with their tools. */
class AdminTest extends Clients {

    @Test
    void a_queue_shows_where_its_messages_lie() throws Exception {
        String topic = createTopic(2);
        DefaultMQProducer producer = producer();
        for (String tag : List.of("a", "b", "c")) {
            producer.send(new Message(topic, tag, bytes(tag)), queue(topic, 0));
        }
        String broker = server().broker();
        await("three units", () ->
            admin().queryConsumeQueue(broker, topic, 0, 0, 10, null).getMaxQueueIndex() == 3);
        var found = admin().queryConsumeQueue(broker, topic, 0, 1, 10, null);
        assertEquals(0, found.getMinQueueIndex());
        assertEquals(List.of(98L, 99L), found.getQueueData().stream().map(it -> it.getTagsCode()).toList());
        var first = found.getQueueData().get(0);
        // Not always next to each other: what an earlier test sent may be delivered again between them.
        long end = first.getPhysicOffset() + first.getPhysicSize();
        assertTrue(end <= found.getQueueData().get(1).getPhysicOffset(), () -> found.getQueueData().toString());
        assertEquals(1, admin().queryConsumeQueue(broker, topic, 0, 1, 1, null).getQueueData().size());
        assertEquals("nobody@" + topic + " is not online!",
            admin().queryConsumeQueue(broker, topic, 0, 0, 1, "nobody").getFilterData());
        MQClientException refused = assertThrows(MQClientException.class,
            () -> admin().queryConsumeQueue(broker, topic, 1, 0, 1, null));
        assertEquals(1, refused.getResponseCode());
    }

    @Test
    void a_broker_tells_how_far_all_its_groups_are() throws Exception {
        String topic = createTopic(1);
        String group = unique("group");
        Received received = collect(newConsumer(group, topic));
        producer().send(message(topic, "m"));
        received.await(1);
        await("the progress", () -> admin().fetchConsumeStatsInBroker(server().broker(), false, 10_000)
            .getConsumeStatsList().stream().filter(it -> it.containsKey(group)).flatMap(it -> it.get(group).stream())
            .map(it -> it.getOffsetTable().get(queue(topic, 0)))
            .anyMatch(it -> it != null && it.getConsumerOffset() == 1 && it.getBrokerOffset() == 1
                && 0 < it.getLastTimestamp()));
    }

    @Test
    void a_consumer_is_asked_through_the_broker_what_it_does() throws Exception {
        String topic = createTopic(1);
        String group = unique("group");
        var consumer = newConsumer(group, topic, "A || B");
        collect(consumer);
        awaitBalanced(1, consumer);
        String id = consumer.getDefaultMQPushConsumerImpl().getmQClientFactory().getClientId();
        await("its heartbeat", () -> admin().examineConsumerConnectionInfo(group).getConnectionSet().size() == 1);
        var info = admin().getConsumerRunningInfo(group, id, false);
        assertTrue(info.getSubscriptionSet().stream().anyMatch(it -> it.getTopic().equals(topic)
            && it.getSubString().equals("A || B")));
        assertTrue(info.getMqTable().containsKey(queue(topic, 0)));
        assertTrue(admin().getConsumerRunningInfo(group, id, true).getJstack().contains("Thread"));
        assertThrows(Exception.class, () -> admin().getConsumerRunningInfo(group, "nobody", false));
    }

    @Test
    void who_cleans_takes_no_message_away() throws Exception {
        String topic = createTopic(1);
        producer().send(message(topic, "m"));
        assertTrue(admin().cleanExpiredConsumerQueueByAddr(server().broker()));
        assertTrue(admin().cleanUnusedTopicByAddr(server().broker()));
        assertEquals(List.of("m"), readAll(topic, 1).get(0).stream().map(Clients::text).toList());
        collect(topic).await(1);
    }
}
