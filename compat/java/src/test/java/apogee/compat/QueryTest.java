package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.junit.jupiter.api.Test;

/** Finding messages, and looking at who is connected and how far groups are. */
class QueryTest extends Clients {

    @Test
    void messages_are_found_by_each_of_their_keys() throws Exception {
        String topic = createTopic(2);
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 6; i++) {
            producer.send(new Message(topic, "tag", "all part" + i % 2 + " only" + i, bytes("m" + i)));
        }
        long now = System.currentTimeMillis();
        await("all six by the common key", () -> query(topic, "all", 32, now).size() == 6);
        assertEquals(Set.of("m0", "m2", "m4"), query(topic, "part0", 32, now));
        assertEquals(Set.of("m5"), query(topic, "only5", 32, now));
        assertEquals(2, query(topic, "all", 2, now).size());
        assertThrows(MQClientException.class, () -> query(topic, "absent", 32, now));
    }

    private Set<String> query(String topic, String key, int max, long now) throws Exception {
        return admin().queryMessage(topic, key, max, now - 3_600_000, now + 3_600_000).getMessageList().stream()
            .map(Clients::text).collect(Collectors.toSet());
    }

    @Test
    void a_message_is_found_by_either_of_its_ids() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        producer.send(message(topic, "another"));
        Message message = new Message(topic, "tag", "key", bytes("wanted"));
        message.putUserProperty("mine", "yes");
        SendResult sent = producer.send(message);

        MessageExt byOffset = admin().viewMessage(topic, sent.getOffsetMsgId());
        assertEquals("wanted", text(byOffset));
        assertEquals("tag", byOffset.getTags());
        assertEquals("yes", byOffset.getUserProperty("mine"));
        assertEquals(sent.getQueueOffset(), byOffset.getQueueOffset());

        await("the index of the unique id", () -> admin().viewMessage(topic, sent.getMsgId()) != null);
        MessageExt byUnique = admin().viewMessage(topic, sent.getMsgId());
        assertEquals("wanted", text(byUnique));
        assertEquals(sent.getMsgId(), byUnique.getMsgId());
    }

    @Test
    void a_group_shows_its_connected_consumers() throws Exception {
        String topic = createTopic(2);
        String group = unique("group");
        var one = newConsumer(group, topic, "A || B");
        var two = newConsumer(group, topic, "A || B");
        collect(one);
        collect(two);
        Set<String> ids = Set.of(one.getDefaultMQPushConsumerImpl().getmQClientFactory().getClientId(),
            two.getDefaultMQPushConsumerImpl().getmQClientFactory().getClientId());
        await("both consumers", () -> admin().examineConsumerConnectionInfo(group).getConnectionSet().stream()
            .map(c -> c.getClientId()).collect(Collectors.toSet()).equals(ids));
        var info = admin().examineConsumerConnectionInfo(group);
        assertEquals("CONSUME_PASSIVELY", info.getConsumeType().name());
        assertEquals("CLUSTERING", info.getMessageModel().name());
        assertEquals("CONSUME_FROM_FIRST_OFFSET", info.getConsumeFromWhere().name());
        var subscription = info.getSubscriptionTable().get(topic);
        assertEquals("A || B", subscription.getSubString());
        assertEquals(Set.of("A", "B"), subscription.getTagsSet());
        assertEquals(Set.of(topic, "%RETRY%" + group), info.getSubscriptionTable().keySet());
        info.getConnectionSet().forEach(c -> assertEquals("JAVA", c.getLanguage().name()));
        assertEquals(ids, Set.copyOf(one.getDefaultMQPushConsumerImpl().getmQClientFactory()
            .findConsumerIdList(topic, group)));

        two.shutdown();
        await("one consumer", () -> admin().examineConsumerConnectionInfo(group).getConnectionSet().size() == 1);
        one.shutdown();
        await("206", () -> {
            try {
                admin().examineConsumerConnectionInfo(group);
                return false;
            } catch (org.apache.rocketmq.client.exception.MQBrokerException e) {
                return e.getResponseCode() == 206;
            }
        });
    }

    @Test
    void a_producer_group_shows_its_connection() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        producer.send(message(topic, "m"));
        String id = producer.getDefaultMQProducerImpl().getMqClientFactory().getClientId();
        await("the producer", () -> admin().examineProducerConnectionInfo(producer.getProducerGroup(), topic)
            .getConnectionSet().stream().anyMatch(c -> c.getClientId().equals(id)));
    }

    @Test
    void the_progress_of_a_group_and_the_extent_of_a_topic_are_shown() throws Exception {
        String topic = createTopic(2);
        String group = unique("group");
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 10; i++) {
            producer.send(message(topic, "m" + i), queue(topic, i < 7 ? 0 : 1));
        }
        var consumer = newConsumer(group, topic);
        collect(consumer).await(10);
        await("the commits", () -> committed(group, topic) == 10);
        consumer.shutdown();
        producer.send(message(topic, "unread"), queue(topic, 1));

        await("a difference of one", () -> {
            var stats = admin().examineConsumeStats(group, topic).getOffsetTable();
            var zero = stats.get(queue(topic, 0));
            var one = stats.get(queue(topic, 1));
            return zero.getBrokerOffset() == 7 && zero.getConsumerOffset() == 7
                && one.getBrokerOffset() == 4 && one.getConsumerOffset() == 3;
        });
        var extent = admin().examineTopicStats(topic).getOffsetTable();
        assertEquals(2, extent.size());
        assertEquals(0, extent.get(queue(topic, 0)).getMinOffset());
        assertEquals(7, extent.get(queue(topic, 0)).getMaxOffset());
        assertEquals(4, extent.get(queue(topic, 1)).getMaxOffset());
        var pull = pullConsumer(unique("reader"));
        assertEquals(4, pull.maxOffset(queue(topic, 1)));
    }

    @Test
    void a_group_set_back_in_time_reads_again() throws Exception {
        String topic = createTopic(1);
        String group = unique("group");
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 5; i++) {
            producer.send(message(topic, "m" + i));
        }
        Received received = collect(newConsumer(group, topic));
        received.await(5);
        await("the commits", () -> committed(group, topic) == 5);
        admin().resetOffsetByTimestamp(topic, group, 0, true);
        // The client waits 10 s before it takes up a pushed reset.
        received.await(10);
        assertEquals(List.of("m0", "m1", "m2", "m3", "m4"), received.bodies().stream().distinct().sorted().toList());
    }

    @Test
    void the_cluster_lists_its_broker() throws Exception {
        var cluster = admin().examineBrokerClusterInfo();
        assertEquals(Set.of("DefaultCluster"), cluster.getClusterAddrTable().keySet());
        assertEquals(server().broker(), cluster.getBrokerAddrTable().get(Server.BROKER_NAME).getBrokerAddrs().get(0L));
    }
}
