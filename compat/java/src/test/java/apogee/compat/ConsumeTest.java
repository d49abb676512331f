package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.junit.jupiter.api.Test;

class ConsumeTest extends Clients {

    @Test
    void a_tag_filter_A_or_B_passes_just_those() throws Exception {
        String topic = createTopic(2);
        DefaultMQProducer producer = producer();
        String group = unique("group");
        DefaultMQPushConsumer consumer = newConsumer(group, topic, "A || B");
        Received received = collect(consumer);
        for (int i = 0; i < 40; i++) {
            String tag = List.of("A", "B", "C", "").get(i % 4);
            producer.send(new Message(topic, tag, bytes(tag + i)));
        }
        producer.send(new Message(topic, "A", bytes("A-last")), queue(topic, 0));
        producer.send(new Message(topic, "B", bytes("B-last")), queue(topic, 1));
        received.await(22);
        assertTrue(received.all().stream().allMatch(m -> "A".equals(m.getTags()) || "B".equals(m.getTags())));
        assertEquals(22, received.bodies().stream().distinct().count());
        assertEquals(22, received.all().size());
        // Filtered messages count as read.
        await("the offsets of all 42 messages", () -> committed(group, topic) == 42);
    }

    @Test
    void two_groups_with_other_tags_each_get_their_own() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        Received red = collect(newConsumer(unique("red"), topic, "red"));
        Received all = collect(newConsumer(unique("all"), topic, "*"));
        for (int i = 0; i < 10; i++) {
            producer.send(new Message(topic, i % 2 == 0 ? "red" : "blue", bytes("m" + i)));
        }
        all.await(10);
        red.await(5);
        assertEquals(List.of("m0", "m2", "m4", "m6", "m8"), red.sortedBodies());
    }

    @Test
    void a_new_group_reading_from_the_first_offset_gets_everything() throws Exception {
        String topic = createTopic(2);
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 10; i++) {
            producer.send(message(topic, "old" + i));
        }
        assertEquals(10, collect(topic).await(10).size());
    }

    /** The rule behind many surprised users: as long as nothing was deleted, "last" means "first". */
    @Test
    void a_new_group_reading_from_the_last_offset_of_a_young_topic_gets_everything_too() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 10; i++) {
            producer.send(message(topic, "old" + i));
        }
        DefaultMQPushConsumer consumer = newConsumer(unique("group"), topic);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET);
        assertEquals(10, collect(consumer).await(10).size());
    }

    @Test
    void a_restarted_consumer_resumes_where_the_group_stopped() throws Exception {
        String topic = createTopic(2);
        String group = unique("group");
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 20; i++) {
            producer.send(message(topic, "first" + i));
        }
        DefaultMQPushConsumer before = newConsumer(group, topic);
        collect(before).await(20);
        before.shutdown();
        for (int i = 0; i < 20; i++) {
            producer.send(message(topic, "second" + i));
        }
        DefaultMQPushConsumer after = newConsumer(group, topic);
        Received received = collect(after);
        received.await(20);
        await("commit", () -> committed(group, topic) == 40);
        assertEquals(IntStream.range(0, 20).mapToObj(i -> "second" + i).sorted().toList(), received.sortedBodies());
    }

    @Test
    void a_waiting_consumer_gets_a_message_at_once() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        Map<String, Long> arrived = new ConcurrentHashMap<>();
        DefaultMQPushConsumer consumer = newConsumer(unique("group"), topic);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(m -> arrived.put(text(m), System.nanoTime()));
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        producer.send(message(topic, "warm-up"));
        await("the first message", () -> arrived.containsKey("warm-up"));
        List<Long> millis = new ArrayList<>();
        for (int i = 0; i < 15; i++) {
            Thread.sleep(100 + 37 * (i % 4)); // the consumer must be waiting, not busy
            String body = "m" + i;
            long sent = System.nanoTime();
            producer.send(message(topic, body));
            await(body, () -> arrived.containsKey(body));
            millis.add((arrived.get(body) - sent) / 1_000_000);
        }
        millis.sort(null);
        assertTrue(millis.get(7) < 300, "median latency, all in ms: " + millis);
        assertTrue(millis.get(14) < 5000, "worst latency, all in ms: " + millis);
    }

    @Test
    void a_consumer_may_take_messages_in_batches() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        List<Message> batch = IntStream.range(0, 64).mapToObj(i -> message(topic, "m" + i)).toList();
        producer.send(batch);
        DefaultMQPushConsumer consumer = newConsumer(unique("group"), topic);
        consumer.setConsumeMessageBatchMaxSize(16);
        consumer.setPullBatchSize(20);
        Received received = new Received();
        List<Integer> sizes = new ArrayList<>();
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            synchronized (sizes) {
                sizes.add(messages.size());
            }
            received.addAll(messages);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        received.await(64);
        synchronized (sizes) {
            assertTrue(sizes.stream().anyMatch(size -> size > 1), sizes.toString());
            assertTrue(sizes.stream().allMatch(size -> size <= 16), sizes.toString());
        }
    }

    @Test
    void broadcasting_gives_every_message_to_both_consumers() throws Exception {
        String topic = createTopic(3);
        String group = unique("group");
        List<Received> both = new ArrayList<>();
        List<DefaultMQPushConsumer> consumers = new ArrayList<>();
        for (int i = 0; i < 2; i++) {
            DefaultMQPushConsumer consumer = newConsumer(group, topic);
            consumer.setInstanceName(unique("member"));
            // MessageModel lives in another package in 4.x, so it is named through its value.
            consumer.setMessageModel(
                Enum.valueOf(consumer.getMessageModel().getDeclaringClass(), "BROADCASTING"));
            both.add(collect(consumer));
            consumers.add(consumer);
        }
        await("all queues at both", () -> consumers.stream().allMatch(c -> assigned(c).size() == 3));
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 30; i++) {
            producer.send(message(topic, "m" + i));
        }
        List<String> sent = IntStream.range(0, 30).mapToObj(i -> "m" + i).sorted().toList();
        for (Received received : both) {
            received.await(30);
            assertEquals(sent, received.sortedBodies());
        }
    }

    @Test
    void a_consumer_of_several_topics_gets_each() throws Exception {
        String one = createTopic(1);
        String two = createTopic(2);
        DefaultMQPushConsumer consumer = newConsumer(unique("group"), one);
        consumer.subscribe(two, "*");
        Received received = collect(consumer);
        DefaultMQProducer producer = producer();
        producer.send(message(one, "one"));
        producer.send(message(two, "two"));
        received.await(2);
        for (MessageExt message : received.all()) {
            assertEquals(text(message).equals("one") ? one : two, message.getTopic());
        }
    }

    @Test
    void a_subscription_added_while_running_takes_effect() throws Exception {
        String one = createTopic(1);
        String two = createTopic(1);
        DefaultMQProducer producer = producer();
        DefaultMQPushConsumer consumer = newConsumer(unique("group"), one);
        Received received = collect(consumer);
        producer.send(message(one, "one"));
        received.await(1);
        consumer.subscribe(two, "*");
        producer.send(message(two, "two"));
        // The client looks at new subscriptions when it rebalances and refreshes routes.
        await("the message of the second topic", Duration.ofSeconds(90), () -> received.bodies().contains("two"));
    }
}
