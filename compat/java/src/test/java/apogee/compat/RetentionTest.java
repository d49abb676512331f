package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.time.Instant;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;

/**
 * A topic that lost its beginning to the age limit. Only there do CONSUME_FROM_LAST_OFFSET and _TIMESTAMP mean
 * what they say: on a topic that still has its first message a new group starts with that.
 */
@Order(1) // the longest, though it only waits
class RetentionTest extends Clients {
    @Override
    Server startServer() {
        return Server.start(Map.of(
            "mappedFileSizeCommitLog", String.valueOf(1 << 20),
            "fileReservedTime", "0",
            "deleteWhen", IntStream.range(0, 24).mapToObj(h -> String.format("%02d", h)).collect(Collectors.joining(";"))));
    }

    @AfterEach
    void closeServer() throws Exception {
        closeClients();
        server().close();
    }

    @Test
    void old_messages_go_and_new_groups_start_where_they_ask_to() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = newProducer();
        producer.setCompressMsgBodyOverHowmuch(1 << 20);
        producer.start();
        byte[] body = new byte[100 << 10];
        new Random(1).nextBytes(body);
        for (int i = 0; i < 40; i++) {
            producer.send(new Message(topic, "old", body));
        }
        DefaultMQPullConsumer reader = pullConsumer(unique("reader"));
        // The store looks for old segments from a minute after its start on.
        await("the loss of the first messages", Duration.ofSeconds(150), () -> reader.minOffset(queue(topic, 0)) > 0);
        PullResult gone = reader.pull(queue(topic, 0), "*", 0, 32);
        assertEquals(PullStatus.OFFSET_ILLEGAL, gone.getPullStatus());
        assertTrue(gone.getNextBeginOffset() > 0 && gone.getNextBeginOffset() <= 40);
        assertEquals(40, reader.maxOffset(queue(topic, 0)));

        producer.send(new Message(topic, "before", bytes("before")));
        long pause = System.currentTimeMillis() / 1000 + 2; // consumeTimestamp counts seconds
        await("the next second", () -> System.currentTimeMillis() >= pause * 1000 + 100);
        producer.send(new Message(topic, "after", bytes("after")));

        DefaultMQPushConsumer byTime = newConsumer(unique("time"), topic);
        byTime.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_TIMESTAMP);
        byTime.setConsumeTimestamp(DateTimeFormatter.ofPattern("yyyyMMddHHmmss").withZone(ZoneId.systemDefault())
            .format(Instant.ofEpochSecond(pause)));
        Received fromTime = collect(byTime);
        assertEquals("after", text(fromTime.await(1).get(0)));

        DefaultMQPushConsumer atEnd = newConsumer(unique("last"), topic);
        atEnd.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_LAST_OFFSET);
        Received fromEnd = collect(atEnd);
        awaitBalanced(1, atEnd);
        Received fromStart = collect(topic);
        fromStart.await(2);
        producer.send(new Message(topic, "last", bytes("last")));
        fromEnd.await(1);
        fromTime.await(2);
        assertEquals(List.of("last"), fromEnd.bodies());
        assertEquals(List.of("after", "last"), fromTime.bodies());
        await("the last message", () -> fromStart.bodies().contains("last"));
        assertTrue(fromStart.bodies().contains("before"));
    }
}
