package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.junit.jupiter.api.Test;

/** Failed consumption, dead letters and delayed messages. */
class RetryTest extends Clients {

    private Received refuse(DefaultMQPushConsumer consumer, int acceptFromAttempt) throws Exception {
        Received received = new Received();
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            received.addAll(messages);
            return messages.get(0).getReconsumeTimes() < acceptFromAttempt
                ? ConsumeConcurrentlyStatus.RECONSUME_LATER : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        return received;
    }

    @Test
    void a_refused_message_comes_again_with_its_topic_properties_and_a_count() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        Message message = new Message(topic, "tag", "key", bytes("again ✓"));
        message.putUserProperty("mine", "своё");
        SendResult sent = producer.send(message);
        String group = unique("group");
        Received received = refuse(newConsumer(group, topic, "tag"), 2);
        List<MessageExt> attempts = received.await(3);
        for (int i = 0; i < 3; i++) {
            MessageExt attempt = attempts.get(i);
            assertEquals(i, attempt.getReconsumeTimes());
            assertEquals(topic, attempt.getTopic());
            assertEquals("again ✓", text(attempt));
            assertEquals("tag", attempt.getTags());
            assertEquals("key", attempt.getKeys());
            assertEquals("своё", attempt.getUserProperty("mine"));
            assertEquals(sent.getMsgId(), attempt.getMsgId());
        }
        assertEquals(topic, attempts.get(1).getProperty("RETRY_TOPIC"));
        assertEquals(sent.getOffsetMsgId(), attempts.get(1).getProperty("ORIGIN_MESSAGE_ID"));
        assertEquals(sent.getOffsetMsgId(), attempts.get(2).getProperty("ORIGIN_MESSAGE_ID"));
        long between = attempts.get(1).getStoreTimestamp() - attempts.get(0).getStoreTimestamp();
        assertTrue(between >= 900, "retried after " + between + " ms, the level says 1 s");
    }

    @Test
    void a_message_refused_too_often_goes_to_the_dead_letter_topic() throws Exception {
        String topic = createTopic(2);
        DefaultMQProducer producer = producer();
        Message message = new Message(topic, "tag", "key", bytes("poison"));
        message.putUserProperty("mine", "kept");
        SendResult sent = producer.send(message);
        String group = unique("group");
        DefaultMQPushConsumer consumer = newConsumer(group, topic);
        consumer.setMaxReconsumeTimes(2);
        Received received = refuse(consumer, Integer.MAX_VALUE);
        received.await(3);
        String dlq = "%DLQ%" + group;
        await("the dead letter topic", () -> !admin().examineTopicRouteInfo(dlq).getQueueDatas().isEmpty());
        MessageExt dead = collect(dlq).await(1).get(0);
        assertEquals("poison", text(dead));
        assertEquals("tag", dead.getTags());
        assertEquals("kept", dead.getUserProperty("mine"));
        assertEquals(topic, dead.getProperty("RETRY_TOPIC"));
        assertEquals(sent.getOffsetMsgId(), dead.getProperty("ORIGIN_MESSAGE_ID"));
        assertEquals(sent.getMsgId(), dead.getMsgId());
        assertEquals(List.of(0, 1, 2), received.all().stream().map(MessageExt::getReconsumeTimes).toList());
    }

    @Test
    void the_retry_topic_of_a_group_has_its_messages_but_the_topic_does_not() throws Exception {
        String topic = createTopic(1);
        String group = unique("group");
        producer().send(message(topic, "once"));
        Received received = refuse(newConsumer(group, topic), 1);
        received.await(2);
        assertEquals(1, readAll(topic, 1).get(0).size());
        await("a message in the retry topic", () -> readAll("%RETRY%" + group, 1).get(0).size() == 1);
    }

    @Test
    void only_refused_messages_of_many_come_again() throws Exception {
        String topic = createTopic(2);
        String group = unique("group");
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 30; i++) {
            producer.send(message(topic, String.valueOf(i)));
        }
        DefaultMQPushConsumer consumer = newConsumer(group, topic);
        Received received = new Received();
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            received.addAll(messages);
            MessageExt message = messages.get(0);
            return message.getReconsumeTimes() == 0 && Integer.parseInt(text(message)) % 3 == 0
                ? ConsumeConcurrentlyStatus.RECONSUME_LATER : ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        received.await(40);
        List<String> again = received.all().stream().filter(m -> m.getReconsumeTimes() == 1).map(Clients::text).sorted().toList();
        assertEquals(IntStream.range(0, 30).filter(i -> i % 3 == 0).mapToObj(String::valueOf).sorted().toList(), again);
        await("commit of the topic", () -> committed(group, topic) == 30);
        await("commit of the retry topic", () -> committed(group, "%RETRY%" + group) == 10);
    }

    @Test
    void a_delayed_message_does_not_arrive_before_its_time() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        Received received = collect(topic);
        Message late = message(topic, "3s");
        late.setDelayTimeLevel(2);
        Message soon = message(topic, "1s");
        soon.setDelayTimeLevel(1);
        long before = System.currentTimeMillis();
        SendResult sent = producer.send(late);
        producer.send(soon);
        producer.send(message(topic, "now"));
        List<MessageExt> got = received.await(3);
        // On a busy machine the third send may come after the first second.
        List<MessageExt> delayed = got.stream().filter(it -> !text(it).equals("now")).toList();
        assertEquals(List.of("1s", "3s"), delayed.stream().map(Clients::text).toList());
        for (MessageExt message : delayed) {
            long level = text(message).equals("1s") ? 1_000 : 3_000;
            long delay = message.getStoreTimestamp() - before;
            assertTrue(delay >= level - 100 && delay < 20_000, text(message) + " was delivered after " + delay + " ms");
        }
        MessageExt last = delayed.get(1);
        assertEquals(topic, last.getTopic());
        assertEquals(sent.getMsgId(), last.getMsgId());
        assertEquals("2", last.getProperty("DELAY"));
        assertNotEquals(sent.getOffsetMsgId(), offsetId(last));
    }

    private static String offsetId(MessageExt message) {
        return ((org.apache.rocketmq.common.message.MessageClientExt) message).getOffsetMsgId();
    }

    @Test
    void a_delay_level_beyond_the_last_is_the_last() throws Exception {
        String topic = createTopic(1);
        Received received = collect(topic);
        Message message = message(topic, "m");
        message.setDelayTimeLevel(99);
        producer().send(message);
        assertEquals("m", text(received.await(1).get(0)));
    }
}
