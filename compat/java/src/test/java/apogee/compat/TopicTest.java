package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;
import org.junit.jupiter.api.Test;

class TopicTest extends Clients {

    @Test
    void sending_to_an_unknown_topic_creates_it_with_four_queues() throws Exception {
        String topic = unique("auto");
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 8; i++) {
            producer.send(message(topic, "m" + i));
        }
        await("the route", () -> admin().examineTopicRouteInfo(topic).getQueueDatas().size() == 1);
        var queues = admin().examineTopicRouteInfo(topic).getQueueDatas().get(0);
        assertEquals(4, queues.getReadQueueNums());
        assertEquals(4, queues.getWriteQueueNums());
        assertEquals(6, queues.getPerm());
        collect(topic).await(8);
    }

    @Test
    void an_auto_created_topic_has_as_many_queues_as_the_producer_says_up_to_the_default() throws Exception {
        String topic = unique("auto");
        DefaultMQProducer producer = newProducer();
        producer.setDefaultTopicQueueNums(2);
        producer.start();
        producer.send(message(topic, "m"));
        await("the route", () -> admin().examineTopicRouteInfo(topic).getQueueDatas().get(0).getWriteQueueNums() == 2);
    }

    @Test
    void a_created_topic_has_the_queues_it_was_given_and_can_grow() throws Exception {
        String topic = createTopic(3);
        DefaultMQProducer producer = producer();
        assertEquals(Set.of(queue(topic, 0), queue(topic, 1), queue(topic, 2)),
            new HashSet<>(producer.fetchPublishMessageQueues(topic)));
        for (int i = 0; i < 3; i++) {
            producer.send(message(topic, "m" + i));
        }
        putTopic(topic, 5, 6);
        DefaultMQProducer fresh = producer();
        assertEquals(5, fresh.fetchPublishMessageQueues(topic).size());
        fresh.send(message(topic, "in a new queue"), queue(topic, 4));
        var all = readAll(topic, 5);
        assertEquals(List.of("in a new queue"), all.get(4).stream().map(Clients::text).toList());
        assertEquals(4, all.values().stream().mapToInt(List::size).sum());
    }

    @Test
    void read_and_write_queues_may_differ() throws Exception {
        String topic = unique("topic");
        admin().createAndUpdateTopicConfig(server().broker(), new TopicConfig(topic, 4, 2, 6));
        await("the route", () -> admin().examineTopicRouteInfo(topic).getQueueDatas().get(0).getReadQueueNums() == 4);
        assertEquals(2, producer().fetchPublishMessageQueues(topic).size());
        assertEquals(4, pullConsumer(unique("group")).fetchSubscribeMessageQueues(topic).size());
    }

    @Test
    void a_read_only_topic_refuses_producers_but_is_read() throws Exception {
        String topic = createTopic(1);
        producer().send(message(topic, "before"));
        putTopic(topic, 1, 4);
        DefaultMQProducer producer = producer();
        MQClientException refused = assertThrows(MQClientException.class,
            () -> producer.send(message(topic, "after")));
        assertEquals(10005, refused.getResponseCode()); // NOT_FOUND_TOPIC_EXCEPTION: no queue to write to
        assertEquals("before", text(collect(topic).await(1).get(0)));
        DefaultMQPullConsumer consumer = pullConsumer(unique("group"));
        assertEquals(PullStatus.FOUND, consumer.pull(queue(topic, 0), "*", 0, 32).getPullStatus());
        assertEquals(1, consumer.maxOffset(queue(topic, 0)));
    }

    @Test
    void a_write_only_topic_takes_messages_but_refuses_readers() throws Exception {
        String topic = createTopic(1);
        putTopic(topic, 1, 2);
        producer().send(message(topic, "m"));
        DefaultMQPullConsumer consumer = pullConsumer(unique("group"));
        MQBrokerException refused = assertThrows(MQBrokerException.class,
            () -> consumer.pull(queue(topic, 0), "*", 0, 32));
        assertEquals(16, refused.getResponseCode());
    }

    @Test
    void a_topic_with_an_illegal_name_is_not_created() {
        for (String name : List.of("with space", "dollar$", "a".repeat(128), "")) {
            assertRefused(name);
        }
    }

    @Test
    void a_system_topic_cannot_be_created() {
        assertRefused("SCHEDULE_TOPIC_XXXX");
    }

    private void assertRefused(String topic) {
        MQClientException refused = assertThrows(MQClientException.class,
            () -> admin().createAndUpdateTopicConfig(server().broker(), new TopicConfig(topic, 1, 1, 6)), topic);
        assertTrue(Set.of(29, 1).contains(refused.getResponseCode()), refused.toString()); // 1: 4.9
    }

    @Test
    void a_pull_from_an_unknown_topic_says_so() throws Exception {
        String topic = unique("nowhere");
        String known = createTopic(1);
        DefaultMQPullConsumer consumer = pullConsumer(unique("group"));
        consumer.pull(queue(known, 0), "*", 0, 32); // now it knows the broker
        MQBrokerException refused = assertThrows(MQBrokerException.class,
            () -> consumer.pull(new MessageQueue(topic, Server.BROKER_NAME, 0), "*", 0, 32));
        assertEquals(17, refused.getResponseCode());
    }

    @Test
    void a_deleted_topic_is_gone_from_broker_and_name_server() throws Exception {
        String topic = createTopic(1);
        producer().send(message(topic, "m"));
        admin().deleteTopicInBroker(Set.of(server().broker()), topic);
        deleteRoute(topic);
        await("no route", () -> {
            try {
                admin().examineTopicRouteInfo(topic);
                return false;
            } catch (MQClientException e) {
                return e.getResponseCode() == 17;
            }
        });
        // Made anew, it is empty.
        putTopic(topic, 1, 6);
        assertEquals(0, pullConsumer(unique("group")).maxOffset(queue(topic, 0)));
    }

    /** By reflection: 4.x wants (addresses, topic, cluster), 5.x has no such order of arguments. */
    private void deleteRoute(String topic) throws Exception {
        Set<String> nameServers = Set.of(server().nameServer());
        try {
            DefaultMQAdminExt.class.getMethod("deleteTopicInNameServer", Set.class, String.class)
                .invoke(admin(), nameServers, topic);
        } catch (NoSuchMethodException e) {
            DefaultMQAdminExt.class.getMethod("deleteTopicInNameServer", Set.class, String.class, String.class)
                .invoke(admin(), nameServers, topic, "DefaultCluster");
        }
    }
}
