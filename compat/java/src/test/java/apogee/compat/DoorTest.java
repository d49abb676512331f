package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.consumer.store.OffsetStore;
import org.apache.rocketmq.client.consumer.store.ReadOffsetType;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfSystemProperty;
import org.junit.jupiter.api.parallel.Execution;
import org.junit.jupiter.api.parallel.ExecutionMode;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * The two-way door: Apache RocketMQ and Apogee take turns on one store directory with one broker.conf. Each must
 * find everything that was there when the other was stopped or killed. Runs if the property {@code doors} names
 * homes of Apache's, separated by commas.
 */
@EnabledIfSystemProperty(named = "doors", matches = ".+")
@Execution(ExecutionMode.CONCURRENT)
class DoorTest extends Clients {
    private static final int STAGES = 4;
    private static final int QUEUES = 3;
    /** Delay levels: one that passes within a stage, and two that reach into the next; retries begin at 3. */
    private static final int SOON = 1;
    private static final int LATE = 2;
    private static final String LEVELS = "1s 8s 8s" + " 1s".repeat(15);
    private static final int BURST = 200;

    private static final String PLAIN = "plain";
    private static final String DELAYED = "delayed";
    private static final String RETRIED = "retried";
    private static final String READERS = "readers";
    private static final String DELAY_READERS = "delay-readers";
    private static final String RETRIERS = "retriers";

    enum Stop { SIGTERM, KILL }

    private final long started = System.nanoTime();
    private String name;
    private Stop stop;
    private int stage;
    /** What was acknowledged in the topic PLAIN. */
    private final List<Sent> sent = new ArrayList<>();
    /** Of those before, READERS have read all. */
    private int readCount;
    /** Every message that was read, as text, by queue. */
    private final Map<MessageQueue, List<String>> seen = new HashMap<>();
    /** Store time of the first message in queue 0 of each stage, and its offset. */
    private final Map<Long, Long> offsetAtTime = new TreeMap<>();
    /** What groups have committed: group, topic, sum of the offsets. */
    private final Map<String, Map<String, Long>> committed = new LinkedHashMap<>();

    private record Sent(Message message, int queue, long offset, String msgId, String offsetMsgId) {
    }

    static Stream<Arguments> doors() {
        return Arrays.stream(System.getProperty("doors").split(","))
            .flatMap(home -> Arrays.stream(Stop.values()).map(stop -> Arguments.of(Path.of(home), stop)));
    }

    @Override
    Server startServer() {
        return Server.create(Map.of(
            "messageDelayLevel", LEVELS,
            // Several files of the log, and of the index, in each stage.
            "mappedFileSizeCommitLog", String.valueOf(1 << 20),
            "maxHashSlotNum", "100",
            "maxIndexNum", "150",
            "flushConsumerOffsetInterval", "1000",
            "flushDelayOffsetInterval", "1000"));
    }

    @AfterEach
    void closeServer() throws Exception {
        closeClients();
        server().close();
    }

    @ParameterizedTest(name = "{0}, {1}")
    @MethodSource("doors")
    @Timeout(300)
    void each_finds_all_that_the_other_left(Path home, Stop stop) throws Exception {
        this.stop = stop;
        for (stage = 0; stage < STAGES; stage++) {
            name = String.format("%s, %s, stage %d, %s", home.getFileName(), stop, stage,
                stage % 2 == 0 ? "Apache" : "Apogee");
            if (stage % 2 == 0) {
                server().startApache(home);
            } else {
                server().startApogeeInPlaceOfApache();
            }
            say("is up");
            try {
                findAll();
                say("has found all of " + sent.size() + " messages");
                addMore();
                say("has taken more");
                leave();
                say("has ended");
            } catch (Throwable e) {
                throw new AssertionError(name + ": " + e.getMessage(), e);
            }
        }
    }

    // ---- what must be there ----

    private void findAll() throws Exception {
        findTables();
        for (var group : committed.entrySet()) {
            for (var topic : group.getValue().entrySet()) {
                assertEquals(topic.getValue(), committedSum(group.getKey(), topic.getKey()),
                    "committed by " + group.getKey() + " in " + topic.getKey());
            }
        }
        readAgain();
        for (Sent it : sent) {
            if (it.message.getKeys() != null) {
                findByIds(it);
            }
        }
        long keyed = sent.stream().filter(it -> it.message.getKeys() != null).count();
        if (0 < keyed) {
            long found = admin().queryMessage(PLAIN, "common", 64, 0, System.currentTimeMillis() + 60_000)
                .getMessageList().size();
            assertEquals(keyed, found, "messages with the common key");
        }
        for (var time : offsetAtTime.entrySet()) {
            assertEquals(time.getValue(), admin().searchOffset(queue(PLAIN, 0), time.getKey()), "offset by time");
        }
    }

    private void findTables() throws Exception {
        var groups = admin().getAllSubscriptionGroup(server().broker(), 5000).getSubscriptionGroupTable();
        for (int before = 0; before < stage; before++) {
            String topic = "made-" + before;
            var route = admin().examineTopicRouteInfo(topic).getQueueDatas().get(0);
            assertEquals(2 + before, route.getWriteQueueNums(), topic);
            assertEquals(5 + before, route.getReadQueueNums(), topic);
            assertEquals(4, route.getPerm(), topic);
            var group = groups.get("made-" + before);
            assertNotNull(group, "group made-" + before);
            assertEquals(7 + before, group.getRetryMaxTimes());
            assertEquals(false, group.isConsumeBroadcastEnable());
            assertEquals(before % 2 == 0, group.isConsumeEnable());
        }
    }

    /** Every message that was read once is where it was, as it was; and so is every one acknowledged since. */
    private void readAgain() throws Exception {
        Map<MessageQueue, List<MessageExt>> now = new HashMap<>();
        for (String topic : stage == 0 ? List.<String>of() : List.of(PLAIN, DELAYED, RETRIED)) {
            readAll(topic, QUEUES).forEach((id, messages) -> now.put(queue(topic, id), messages));
        }
        for (var queue : now.entrySet()) {
            List<String> lines = queue.getValue().stream().map(DoorTest::line).toList();
            List<String> before = seen.getOrDefault(queue.getKey(), List.of());
            assertEquals(String.join("\n", before),
                String.join("\n", lines.subList(0, Math.min(before.size(), lines.size()))), "in " + queue.getKey());
            seen.put(queue.getKey(), lines);
        }
        for (Sent it : sent) {
            List<MessageExt> messages = now.get(queue(PLAIN, it.queue));
            String what = text(it.message).substring(0, 8) + "... in queue " + it.queue + " at " + it.offset;
            assertEquals(true, it.offset < messages.size(), "there is " + what);
            MessageExt found = messages.get((int) it.offset);
            assertEquals(text(it.message), text(found), what);
            if (it.msgId != null) {
                assertEquals(it.msgId, found.getMsgId(), what);
            }
            assertEquals(it.offset, found.getQueueOffset(), what);
            assertEquals(it.message.getTags(), found.getTags(), what);
            assertEquals(it.message.getKeys(), found.getKeys(), what);
            assertEquals(it.message.getUserProperty("mine"), found.getUserProperty("mine"), what);
            assertEquals(it.message.getFlag(), found.getFlag(), what);
        }
        long stored = now.entrySet().stream().filter(it -> it.getKey().getTopic().equals(PLAIN))
            .mapToLong(it -> it.getValue().size()).sum();
        assertEquals(sent.size(), stored, "messages in " + PLAIN);
    }

    /** All of a message that a server keeps. */
    private static String line(MessageExt message) {
        Map<String, String> properties = new TreeMap<>(message.getProperties());
        properties.remove("MIN_OFFSET"); // of the queue, added by the client
        properties.remove("MAX_OFFSET");
        return String.format("%d: at %d, born %d %s, stored %d %s, flags %d %d, again %d, %d bytes %08x, %s",
            message.getQueueOffset(), message.getCommitLogOffset(), message.getBornTimestamp(), message.getBornHost(),
            message.getStoreTimestamp(), message.getStoreHost(), message.getFlag(), message.getSysFlag(),
            message.getReconsumeTimes(), message.getBody().length, Arrays.hashCode(message.getBody()), properties);
    }

    private void findByIds(Sent it) throws Exception {
        String key = it.message.getKeys().split(" ")[0];
        var found = admin().queryMessage(PLAIN, key, 32, 0, System.currentTimeMillis() + 60_000).getMessageList();
        assertEquals(List.of(text(it.message)), found.stream().map(Clients::text).toList(), "by key " + key);
        if (it.msgId != null) {
            assertEquals(text(it.message), text(admin().viewMessage(PLAIN, it.msgId)), "by unique key " + key);
        }
        assertEquals(text(it.message), text(admin().viewMessage(PLAIN, it.offsetMsgId)), "by offset id " + key);
    }

    // ---- what a stage adds ----

    private void addMore() throws Exception {
        makeTables();
        var delayReader = newConsumer(DELAY_READERS, DELAYED);
        var retrier = newConsumer(RETRIERS, RETRIED);
        var reader = newConsumer(READERS, PLAIN);
        Received delayed = collect(delayReader);
        Received again = collect(retrier);
        DefaultMQProducer producer = producer();
        sendOneOfEachKind(producer);
        sendDelayed(producer, "soon-" + stage, SOON);
        Received read = collect(reader);

        read.await(sent.size() - readCount);
        assertEquals(sent.subList(readCount, sent.size()).stream().map(it -> text(it.message)).sorted().toList(),
            read.sortedBodies());
        readCount = sent.size();
        delayed.await(0 < stage ? 2 : 1);
        assertEquals(0 < stage ? List.of("late-" + (stage - 1), "soon-" + stage) : List.of("soon-0"),
            delayed.sortedBodies());
        if (0 < stage) {
            again.await(1);
            assertEquals(List.of("retry-" + (stage - 1)), again.bodies());
            assertEquals(1, again.all().get(0).getReconsumeTimes());
        }
        endWhenCommitted(reader, PLAIN, readCount);
        endWhenCommitted(delayReader, DELAYED, 2 * stage + 1);
        endWhenCommitted(retrier, "%RETRY%" + RETRIERS, stage);
        if (stop == Stop.KILL) {
            await("delay progress on disk", () -> 3 * stage + 1 == sumOnDisk("delayOffset.json", "offsetTable"));
        }
    }

    private void makeTables() throws Exception {
        if (stage == 0) {
            for (String topic : List.of(PLAIN, DELAYED, RETRIED)) {
                putTopic(topic, QUEUES, 6);
            }
        }
        String name = "made-" + stage;
        admin().createAndUpdateTopicConfig(server().broker(), new TopicConfig(name, 5 + stage, 2 + stage, 4));
        var groups = admin().getAllSubscriptionGroup(server().broker(), 5000).getSubscriptionGroupTable();
        var group = groups.values().iterator().next(); // its class has another name in every client
        group.setGroupName(name);
        group.setRetryMaxTimes(7 + stage);
        group.setConsumeBroadcastEnable(false);
        group.setConsumeEnable(stage % 2 == 0);
        admin().createAndUpdateSubscriptionGroupConfig(server().broker(), group);
    }

    private void sendOneOfEachKind(DefaultMQProducer producer) throws Exception {
        Thread.sleep(20); // alone at its time
        send(producer, new Message(PLAIN, bytes("first of stage " + stage)), 0);
        Sent first = sent.get(sent.size() - 1);
        Thread.sleep(20);
        send(producer, new Message(PLAIN, "TagA", bytes("tagged, stage " + stage)), 1);
        for (int i = 0; i < QUEUES; i++) {
            Message keyed = new Message(PLAIN, "TagB", "key-" + stage + "-" + i + " common", bytes("keyed-" + stage + i));
            keyed.putUserProperty("mine", "täglich " + stage);
            keyed.setFlag(7);
            send(producer, keyed, i);
        }
        send(producer, new Message(PLAIN, bytes(("large, stage " + stage + " ").repeat(5000))), 2);
        List<Message> batch = Stream.of("a", "b", "c").map(it -> new Message(PLAIN, "TagC",
            "key-" + stage + it + " common", bytes("of a batch-" + stage + it))).toList();
        SendResult result = producer.send(batch, queue(PLAIN, 1));
        assertEquals(SendStatus.SEND_OK, result.getSendStatus());
        String[] ids = result.getMsgId().split(",");
        String[] offsetIds = result.getOffsetMsgId().split(",");
        for (int i = 0; i < ids.length; i++) {
            if (!ids[i].equals(admin().viewMessage(PLAIN, offsetIds[i]).getMsgId())) {
                ids[i] = null; // 4.9 gives all messages of a batch one id
            }
            sent.add(new Sent(batch.get(i), 1, result.getQueueOffset() + i, ids[i], offsetIds[i]));
        }
        MessageExt stored = admin().viewMessage(PLAIN, first.offsetMsgId);
        offsetAtTime.put(stored.getStoreTimestamp(), stored.getQueueOffset());
    }

    private void send(DefaultMQProducer producer, Message message, int queue) throws Exception {
        SendResult result = producer.send(message, queue(PLAIN, queue));
        assertEquals(SendStatus.SEND_OK, result.getSendStatus());
        sent.add(new Sent(message, queue, result.getQueueOffset(), result.getMsgId(), result.getOffsetMsgId()));
    }

    private void sendDelayed(DefaultMQProducer producer, String body, int level) throws Exception {
        Message message = message(DELAYED, body);
        message.setDelayTimeLevel(level);
        assertEquals(SendStatus.SEND_OK, producer.send(message).getSendStatus());
    }

    /** A message that a consumer gives back; the next stage will see it again. */
    private void failOne(DefaultMQProducer producer) throws Exception {
        producer.send(message(RETRIED, "retry-" + stage));
        var failing = newConsumer(RETRIERS, RETRIED);
        failing.registerMessageListener((MessageListenerConcurrently) (messages, context) ->
            ConsumeConcurrentlyStatus.RECONSUME_LATER);
        failing.start();
        // It commits once the broker has taken the message back.
        endWhenCommitted(failing, RETRIED, stage + 1);
    }

    /** Ends a consumer once its commits are where the coming end of the server will not take them from. */
    private void endWhenCommitted(DefaultMQPushConsumer consumer, String topic, long sum) throws Exception {
        String group = consumer.getConsumerGroup();
        OffsetStore offsets = consumer.getDefaultMQPushConsumerImpl().getOffsetStore();
        await(group + " to have done " + sum + " in " + topic,
            () -> sum == sum(offsets, topic, ReadOffsetType.READ_FROM_MEMORY));
        consumer.shutdown(); // commits
        committed.computeIfAbsent(group, key -> new LinkedHashMap<>()).put(topic, sum);
        await(group + " to have committed " + sum + " in " + topic, () -> sum == committedSum(group, topic));
        if (stop == Stop.KILL) {
            await(group + "'s offsets of " + topic + " on disk",
                () -> sumOnDisk("consumerOffset.json", topic + "@" + group) == sum);
        }
    }

    /** The sum of a group's offsets of a topic at the broker, asked without the help of later brokers. */
    private long committedSum(String group, String topic) throws Exception {
        DefaultMQPullConsumer asker = outsider(group);
        long sum = sum(asker.getDefaultMQPullConsumerImpl().getOffsetStore(), topic, ReadOffsetType.READ_FROM_STORE);
        asker.shutdown();
        return sum;
    }

    /** No offset counts as 0. */
    private static long sum(OffsetStore offsets, String topic, ReadOffsetType from) {
        return IntStream.range(0, topic.startsWith("%RETRY%") ? 1 : QUEUES)
            .mapToLong(id -> Math.max(0, offsets.readOffset(queue(topic, id), from))).sum();
    }

    /** The sum of the values of an object in a file of config/. */
    private long sumOnDisk(String file, String key) throws Exception {
        String text = Files.readString(server().store().resolve("config").resolve(file));
        Matcher object = Pattern.compile(Pattern.quote("\"" + key + "\"") + "\\s*:\\s*\\{([^{}]*)\\}").matcher(text);
        return !object.find() ? 0 : Pattern.compile(":\\s*(\\d+)").matcher(object.group(1)).results()
            .mapToLong(value -> Long.parseLong(value.group(1))).sum();
    }

    /** Ends the server just after it has acknowledged many messages, and before delayed ones are due. */
    private void leave() throws Exception {
        closeClients();
        DefaultMQProducer producer = producer();
        String rest = " ".repeat(12_000);
        for (int i = 0; i < BURST; i++) {
            send(producer, message(PLAIN, "burst-" + stage + "-" + i + rest), i % QUEUES);
        }
        failOne(producer);
        sendDelayed(producer, "late-" + stage, LATE);
        if (stop == Stop.KILL) {
            server().kill();
        } else {
            server().stop();
        }
        closeClients();
    }

    private void say(String what) {
        System.out.printf("%5.1f s  %s %s%n", millisSince(started) / 1000.0, name, what);
    }
}
