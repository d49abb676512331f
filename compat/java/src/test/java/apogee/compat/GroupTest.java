package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeSet;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.junit.jupiter.api.Test;

/** Consumers of one group sharing the queues of a topic. */
class GroupTest extends Clients {
    /** Far below the 20 s at which clients look for themselves: only a notification is that fast. */
    private static final Duration FAST = Duration.ofSeconds(5);

    @Test
    void three_consumers_share_10000_messages_with_none_lost_and_none_twice() throws Exception {
        int count = 10_000;
        String topic = createTopic(6);
        String group = unique("group");
        List<Received> received = new ArrayList<>();
        DefaultMQPushConsumer[] consumers = new DefaultMQPushConsumer[3];
        for (int i = 0; i < 3; i++) {
            consumers[i] = newConsumer(group, topic);
            received.add(collect(consumers[i]));
        }
        awaitBalanced(6, consumers);

        DefaultMQProducer producer = producer();
        ExecutorService senders = Executors.newFixedThreadPool(4);
        List<Future<?>> sends = new ArrayList<>();
        for (int t = 0; t < 4; t++) {
            int first = t;
            sends.add(senders.submit(() -> {
                for (int i = first; i < count; i += 4) {
                    producer.send(message(topic, String.valueOf(i)));
                }
                return null;
            }));
        }
        for (Future<?> send : sends) {
            send.get();
        }
        senders.shutdown();

        await("all messages", () -> received.stream().mapToInt(r -> r.all().size()).sum() >= count);
        await("all offsets committed", () -> committed(group, topic) == count);
        List<Integer> all = received.stream().flatMap(r -> r.bodies().stream()).map(Integer::valueOf).sorted().toList();
        assertEquals(IntStream.range(0, count).boxed().toList(), all);
        received.forEach(r -> assertTrue(r.all().size() > 0));
    }

    @Test
    void consumers_that_join_and_leave_rebalance_the_group_at_once() throws Exception {
        String topic = createTopic(4);
        String group = unique("group");
        DefaultMQPushConsumer first = newConsumer(group, topic);
        collect(first);
        awaitBalanced(4, first);
        DefaultMQPushConsumer second = newConsumer(group, topic);
        collect(second);
        await("rebalance after a join", FAST, () -> isBalanced(4, first, second));
        assertEquals(2, assigned(first).size());
        second.shutdown();
        await("rebalance after a leave", FAST, () -> isBalanced(4, first));
    }

    @Test
    void no_message_is_lost_while_consumers_come_and_go() throws Exception {
        String topic = createTopic(4);
        String group = unique("group");
        DefaultMQProducer producer = producer();
        List<Received> received = new ArrayList<>();
        DefaultMQPushConsumer first = newConsumer(group, topic);
        received.add(collect(first));
        int sent = 0;
        for (int round = 0; round < 3; round++) {
            DefaultMQPushConsumer guest = newConsumer(group, topic);
            received.add(collect(guest));
            for (int i = 0; i < 200; i++) {
                producer.send(message(topic, String.valueOf(sent++)));
            }
            awaitBalanced(4, first, guest);
            for (int i = 0; i < 200; i++) {
                producer.send(message(topic, String.valueOf(sent++)));
            }
            guest.shutdown();
        }
        int count = sent;
        await("every message at least once", () -> received.stream().flatMap(r -> r.bodies().stream())
            .collect(Collectors.toCollection(TreeSet::new)).size() == count);
    }

    @Test
    void more_consumers_than_queues_leave_some_idle() throws Exception {
        String topic = createTopic(1);
        String group = unique("group");
        List<Received> received = new ArrayList<>();
        List<DefaultMQPushConsumer> consumers = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            DefaultMQPushConsumer consumer = newConsumer(group, topic);
            received.add(collect(consumer));
            consumers.add(consumer);
        }
        await("one owner", () -> consumers.stream().mapToInt(c -> assigned(c).size()).sum() == 1
            && admin().examineConsumerConnectionInfo(group).getConnectionSet().size() == 2);
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 20; i++) {
            producer.send(message(topic, "m" + i));
        }
        await("20 messages", () -> received.stream().mapToInt(r -> r.all().size()).sum() >= 20);
        assertEquals(20, received.stream().flatMap(r -> r.bodies().stream()).distinct().count());
    }
}
