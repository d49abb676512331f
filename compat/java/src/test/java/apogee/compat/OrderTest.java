package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeOrderlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerOrderly;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageExt;
import org.junit.jupiter.api.Test;

class OrderTest extends Clients {
    private static final int KEYS = 16;

    /** Per key, the number that comes next; per queue, who is consuming it. */
    private final Map<String, Integer> next = new ConcurrentHashMap<>();
    private final Map<Integer, String> owners = new ConcurrentHashMap<>();
    private final Queue<String> violations = new ConcurrentLinkedQueue<>();

    private MessageListenerOrderly checking(String name) {
        return (messages, context) -> {
            int id = context.getMessageQueue().getQueueId();
            String other = owners.putIfAbsent(id, name);
            if (other != null) {
                violations.add("queue " + id + " consumed by " + name + " while " + other + " does");
            }
            try {
                for (MessageExt message : messages) {
                    check(message);
                    Thread.sleep(1); // so that a queue shared by two would show
                }
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                return ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT;
            } finally {
                owners.remove(id, name);
            }
            return ConsumeOrderlyStatus.SUCCESS;
        };
    }

    /** A message may come again after a rebalance, but never before its predecessor. */
    private void check(MessageExt message) {
        int number = Integer.parseInt(text(message));
        next.merge(message.getKeys(), number == 0 ? 1 : -1, (expected, ignored) -> {
            if (number > expected) {
                violations.add("key " + message.getKeys() + ": " + number + " before " + expected);
            }
            return Math.max(expected, number + 1);
        });
        if (next.get(message.getKeys()) == -1) {
            violations.add("key " + message.getKeys() + " began with " + number);
            next.put(message.getKeys(), number + 1);
        }
    }

    @Test
    void the_order_of_each_key_survives_consumers_joining_and_leaving() throws Exception {
        String topic = createTopic(4);
        String group = unique("group");
        DefaultMQPushConsumer first = newConsumer(group, topic);
        first.registerMessageListener(checking("first"));
        first.start();
        awaitBalanced(4, first);

        AtomicBoolean enough = new AtomicBoolean();
        AtomicInteger sent = new AtomicInteger();
        DefaultMQProducer producer = producer();
        Thread sender = new Thread(() -> {
            try {
                for (int number = 0; !enough.get(); number++) {
                    for (int key = 0; key < KEYS; key++) {
                        var message = message(topic, String.valueOf(number));
                        message.setKeys("k" + key);
                        producer.send(message, (queues, m, k) -> queues.get((Integer) k % queues.size()), key);
                    }
                    sent.incrementAndGet();
                    Thread.sleep(20);
                }
            } catch (Exception e) {
                violations.add("sender: " + e);
            }
        });
        sender.start();

        DefaultMQPushConsumer second = newConsumer(group, topic);
        AtomicInteger atSecond = new AtomicInteger();
        MessageListenerOrderly checking = checking("second");
        second.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            atSecond.addAndGet(messages.size());
            return checking.consumeMessage(messages, context);
        });
        second.start();
        awaitBalanced(4, first, second);
        await("messages at the second consumer", () -> atSecond.get() >= 100);
        second.shutdown();
        awaitBalanced(4, first);
        enough.set(true);
        sender.join();

        await("the last of every key", () -> next.size() == KEYS
            && next.values().stream().allMatch(n -> n == sent.get()));
        assertEquals(List.of(), List.copyOf(violations));
    }

    @Test
    void a_message_that_an_ordered_consumer_cannot_take_yet_holds_back_the_next() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 5; i++) {
            producer.send(message(topic, "m" + i));
        }
        DefaultMQPushConsumer consumer = newConsumer(unique("group"), topic);
        consumer.setSuspendCurrentQueueTimeMillis(100);
        Queue<String> attempts = new ConcurrentLinkedQueue<>();
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            String body = text(messages.get(0));
            attempts.add(body);
            boolean refuse = body.equals("m1") && attempts.stream().filter("m1"::equals).count() < 3;
            return refuse ? ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT : ConsumeOrderlyStatus.SUCCESS;
        });
        consumer.start();
        await("the last message", () -> attempts.contains("m4"));
        assertEquals(List.of("m0", "m1", "m1", "m1", "m2", "m3", "m4"), List.copyOf(attempts));
    }

    @Test
    void an_ordered_consumer_gives_up_after_its_limit_and_the_message_is_dead() throws Exception {
        String topic = createTopic(1);
        String group = unique("group");
        DefaultMQProducer producer = producer();
        producer.send(message(topic, "bad"));
        producer.send(message(topic, "good"));
        DefaultMQPushConsumer consumer = newConsumer(group, topic);
        consumer.setMaxReconsumeTimes(2);
        consumer.setSuspendCurrentQueueTimeMillis(100);
        Queue<String> attempts = new ConcurrentLinkedQueue<>();
        consumer.registerMessageListener((MessageListenerOrderly) (messages, context) -> {
            String body = text(messages.get(0));
            attempts.add(body);
            return body.equals("bad") ? ConsumeOrderlyStatus.SUSPEND_CURRENT_QUEUE_A_MOMENT : ConsumeOrderlyStatus.SUCCESS;
        });
        consumer.start();
        await("the good message", () -> attempts.contains("good"));
        assertTrue(attempts.stream().filter("bad"::equals).count() >= 3, attempts.toString());
        Received dead = collect("%DLQ%" + group);
        assertEquals("bad", text(dead.await(1).get(0)));
    }
}
