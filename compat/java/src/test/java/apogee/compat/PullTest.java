package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.junit.jupiter.api.Test;

class PullTest extends Clients {

    @Test
    void pull_walks_a_queue_and_says_where_it_ends() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 10; i++) {
            producer.send(message(topic, "m" + i));
        }
        DefaultMQPullConsumer consumer = pullConsumer(unique("group"));
        MessageQueue queue = queue(topic, 0);
        assertEquals(Set.of(queue), consumer.fetchSubscribeMessageQueues(topic));

        PullResult some = consumer.pull(queue, "*", 0, 4);
        assertEquals(PullStatus.FOUND, some.getPullStatus());
        assertEquals(List.of("m0", "m1", "m2", "m3"), some.getMsgFoundList().stream().map(Clients::text).toList());
        assertEquals(4, some.getNextBeginOffset());
        assertEquals(0, some.getMinOffset());
        assertEquals(10, some.getMaxOffset());

        PullResult rest = consumer.pull(queue, "*", 4, 32);
        assertEquals(6, rest.getMsgFoundList().size());
        assertEquals(10, rest.getNextBeginOffset());

        PullResult end = consumer.pull(queue, "*", 10, 32);
        assertEquals(PullStatus.NO_NEW_MSG, end.getPullStatus());
        assertEquals(10, end.getNextBeginOffset());

        PullResult beyond = consumer.pull(queue, "*", 1000, 32);
        assertEquals(PullStatus.OFFSET_ILLEGAL, beyond.getPullStatus());
        assertEquals(10, beyond.getNextBeginOffset());
    }

    @Test
    void pull_of_an_empty_queue_finds_nothing_new() throws Exception {
        String topic = createTopic(1);
        DefaultMQPullConsumer consumer = pullConsumer(unique("group"));
        PullResult result = consumer.pull(queue(topic, 0), "*", 0, 32);
        assertEquals(PullStatus.NO_NEW_MSG, result.getPullStatus());
        assertEquals(0, result.getNextBeginOffset());
    }

    @Test
    void pull_with_a_tag_skips_the_others_and_moves_on() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 6; i++) {
            producer.send(new Message(topic, i < 3 ? "A" : "B", bytes("m" + i)));
        }
        DefaultMQPullConsumer consumer = pullConsumer(unique("group"));
        PullResult b = consumer.pull(queue(topic, 0), "B", 0, 32);
        assertEquals(List.of("m3", "m4", "m5"), b.getMsgFoundList().stream().map(Clients::text).toList());
        assertEquals(6, b.getNextBeginOffset());
        PullResult none = consumer.pull(queue(topic, 0), "C", 0, 32);
        assertEquals(PullStatus.NO_MATCHED_MSG, none.getPullStatus());
        assertEquals(6, none.getNextBeginOffset());
    }

    @Test
    void a_blocking_pull_returns_when_a_message_comes() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        DefaultMQPullConsumer consumer = pullConsumer(unique("group"));
        producer.send(message(topic, "first"));
        List<Long> returned = new ArrayList<>();
        List<PullResult> results = new ArrayList<>();
        Thread waiting = new Thread(() -> {
            try {
                results.add(consumer.pullBlockIfNotFound(queue(topic, 0), "*", 1, 32));
                returned.add(System.nanoTime());
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
        });
        waiting.start();
        Thread.sleep(1500); // long enough for an answer that should not come
        assertTrue(waiting.isAlive(), "answered without a message");
        long sent = System.nanoTime();
        producer.send(message(topic, "second"));
        waiting.join(LIMIT.toMillis());
        assertEquals("second", text(results.get(0).getMsgFoundList().get(0)));
        assertTrue(returned.get(0) - sent < 2_000_000_000L, "returned late");
    }

    @Test
    void pulling_a_topic_or_queue_that_is_not_there_is_an_error() throws Exception {
        String topic = createTopic(1);
        DefaultMQPullConsumer consumer = pullConsumer(unique("group"));
        MQBrokerException noQueue = assertThrows(MQBrokerException.class,
            () -> consumer.pull(queue(topic, 77), "*", 0, 32));
        assertTrue(Set.of(29, 1).contains(noQueue.getResponseCode()), noQueue.toString()); // 1: 4.9
    }

    @Test
    void a_pull_consumer_stores_its_offsets() throws Exception {
        String topic = createTopic(1);
        String group = unique("group");
        producer().send(message(topic, "m"));
        DefaultMQPullConsumer consumer = pullConsumer(group);
        MessageQueue queue = queue(topic, 0);
        // The broker knows a group from its first pull or heartbeat, and takes commits only then.
        consumer.pull(queue, "*", 0, 32);
        consumer.updateConsumeOffset(queue, 1);
        consumer.getOffsetStore().persist(queue);
        await("the stored offset", () -> consumer.fetchConsumeOffset(queue, true) == 1);
        consumer.shutdown();
        assertEquals(1, pullConsumer(group).fetchConsumeOffset(queue, true));
    }

    @Test
    void a_lite_pull_consumer_subscribes_polls_and_resumes() throws Exception {
        String topic = createTopic(3);
        String group = unique("group");
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 30; i++) {
            producer.send(message(topic, "m" + i));
        }
        DefaultLitePullConsumer consumer = newLitePullConsumer(group);
        consumer.subscribe(topic, "*");
        consumer.start();
        Set<String> got = new HashSet<>();
        await("30 messages", () -> {
            consumer.poll(500).forEach(m -> got.add(text(m)));
            return got.size() == 30;
        });
        consumer.commitSync();
        await("commits of 30", () -> committed(group, topic) == 30);
        consumer.shutdown();

        producer.send(message(topic, "later"));
        DefaultLitePullConsumer next = newLitePullConsumer(group);
        next.subscribe(topic, "*");
        next.start();
        List<String> resumed = new ArrayList<>();
        await("the later message", () -> {
            next.poll(500).forEach(m -> resumed.add(text(m)));
            return resumed.contains("later");
        });
        assertEquals(List.of("later"), resumed);
    }

    @Test
    void a_lite_pull_consumer_with_assigned_queues_seeks_back_and_forth() throws Exception {
        String topic = createTopic(2);
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 10; i++) {
            producer.send(message(topic, "m" + i), queue(topic, 1));
        }
        DefaultLitePullConsumer consumer = newLitePullConsumer(unique("group"));
        consumer.setAutoCommit(false);
        consumer.start();
        MessageQueue queue = queue(topic, 1);
        assertEquals(Set.of(queue(topic, 0), queue), new HashSet<>(consumer.fetchMessageQueues(topic)));
        consumer.assign(List.of(queue));
        consumer.seek(queue, 4);
        // What a fast server delivered before the seek stays in the client's cache.
        List<String> last = List.of("m4", "m5", "m6", "m7", "m8", "m9");
        List<String> sought = new ArrayList<>();
        await("the messages from offset 4 on", () -> {
            consumer.poll(500).forEach(message -> sought.add(text(message)));
            int start = sought.lastIndexOf("m4");
            return start >= 0 && sought.subList(start, sought.size()).equals(last);
        });
        consumer.seekToBegin(queue);
        assertEquals("m0", poll(consumer, 10).get(0));
        consumer.seekToEnd(queue);
        producer.send(message(topic, "new"), queue);
        assertEquals(List.of("new"), poll(consumer, 1));
    }

    private static List<String> poll(DefaultLitePullConsumer consumer, int count) {
        List<String> got = new ArrayList<>();
        await(count + " polled messages", () -> {
            for (MessageExt message : consumer.poll(500)) {
                got.add(text(message));
            }
            return got.size() >= count;
        });
        return got;
    }

    @Test
    void minimum_maximum_and_offset_by_time_are_right() throws Exception {
        String topic = createTopic(1);
        MessageQueue queue = queue(topic, 0);
        DefaultMQProducer producer = producer();
        DefaultMQPullConsumer consumer = pullConsumer(unique("group"));
        assertEquals(0, consumer.minOffset(queue));
        assertEquals(0, consumer.maxOffset(queue));
        List<SendResult> sends = new ArrayList<>();
        for (int i = 0; i < 5; i++) {
            sends.add(producer.send(message(topic, "m" + i)));
            Thread.sleep(20); // times that differ
        }
        List<MessageExt> stored = readAll(topic, 1).get(0);
        assertEquals(0, consumer.minOffset(queue));
        assertEquals(5, consumer.maxOffset(queue));
        assertEquals(stored.get(0).getStoreTimestamp(), consumer.earliestMsgStoreTime(queue));
        for (int i = 0; i < 5; i++) {
            long time = stored.get(i).getStoreTimestamp();
            assertEquals(i, consumer.searchOffset(queue, time), "at the time of message " + i);
            assertEquals(i, sends.get(i).getQueueOffset());
            if (i > 0) {
                assertEquals(i, consumer.searchOffset(queue, time - 5), "just before message " + i);
            }
        }
        assertEquals(0, consumer.searchOffset(queue, stored.get(0).getStoreTimestamp() - 60_000));
        assertEquals(5, consumer.searchOffset(queue, System.currentTimeMillis() + 60_000));
    }
}
