package apogee.compat;

import static org.junit.jupiter.api.Assertions.fail;

import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.ClientConfig;
import org.apache.rocketmq.client.consumer.DefaultLitePullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.PullResult;
import org.apache.rocketmq.client.consumer.PullStatus;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.extension.AfterTestExecutionCallback;
import org.junit.jupiter.api.extension.ExtendWith;
import org.junit.jupiter.api.extension.ExtensionContext;

/** What every test class needs: clients of its server, closed after each test, and ways to wait. */
@ExtendWith(Clients.ServerLog.class)
abstract class Clients {
    static final Duration LIMIT = Duration.ofSeconds(120);

    private static final AtomicInteger COUNTER = new AtomicInteger();

    private final ConcurrentLinkedDeque<AutoCloseable> open = new ConcurrentLinkedDeque<>();

    private Server server;

    /** The server that this class talks to, started when first asked for. */
    final synchronized Server server() {
        if (server == null) {
            server = startServer();
        }
        return server;
    }

    /** Classes with a server of their own say here which. */
    Server startServer() {
        return Server.shared();
    }

    DefaultMQAdminExt admin() {
        return server().admin();
    }

    @AfterEach
    void closeClients() throws Exception {
        for (AutoCloseable client; (client = open.pollFirst()) != null; ) {
            client.close();
        }
    }

    // ---- names ----

    /** A topic or group name that no other test uses. */
    static String unique(String stem) {
        return stem + "_" + Long.toString(System.currentTimeMillis() % 1_000_000_000L, 36) + COUNTER.incrementAndGet();
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(Message message) {
        return new String(message.getBody(), StandardCharsets.UTF_8);
    }

    static Message message(String topic, String body) {
        return new Message(topic, bytes(body));
    }

    // ---- topics ----

    /** Creates a topic and waits until the name server shows it. */
    String createTopic(int queues) throws Exception {
        String topic = unique("topic");
        putTopic(topic, queues, 6);
        return topic;
    }

    void putTopic(String topic, int queues, int perm) throws Exception {
        admin().createAndUpdateTopicConfig(server().broker(), new TopicConfig(topic, queues, queues, perm));
        await("the route of " + topic, () -> admin().examineTopicRouteInfo(topic).getQueueDatas().stream()
            .anyMatch(q -> q.getWriteQueueNums() == queues && q.getReadQueueNums() == queues && q.getPerm() == perm));
    }

    static MessageQueue queue(String topic, int id) {
        return new MessageQueue(topic, Server.BROKER_NAME, id);
    }

    // ---- clients ----

    /**
     * Points a client at the server. The timers are shortened from 30 s because the Java client at times loses
     * the heartbeat that announces a new subscription version to a lock of its own, is then refused (25) until
     * the next one, and notices new routes only by this timer.
     */
    void configure(ClientConfig client) {
        client.setNamesrvAddr(server().nameServer());
        client.setHeartbeatBrokerInterval(2000);
        client.setPollNameServerInterval(2000);
    }

    DefaultMQProducer newProducer() {
        DefaultMQProducer producer = new DefaultMQProducer(unique("producers"));
        configure(producer);
        producer.setSendMsgTimeout(10_000);
        open.addFirst(producer::shutdown);
        return producer;
    }

    DefaultMQProducer producer() throws Exception {
        DefaultMQProducer producer = newProducer();
        producer.start();
        return producer;
    }

    /** A push consumer, not started, that will read a topic from its beginning. */
    DefaultMQPushConsumer newConsumer(String group, String topic, String tags) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        configure(consumer);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setConsumeThreadMin(4);
        consumer.setConsumeThreadMax(4);
        consumer.subscribe(topic, tags);
        open.addFirst(consumer::shutdown);
        return consumer;
    }

    DefaultMQPushConsumer newConsumer(String group, String topic) throws Exception {
        return newConsumer(group, topic, "*");
    }

    /** Starts a consumer that accepts everything it is given. */
    static Received collect(DefaultMQPushConsumer consumer) throws Exception {
        Received received = new Received();
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            received.addAll(messages);
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        return received;
    }

    /** A consumer of a new group, reading the topic from its beginning. */
    Received collect(String topic) throws Exception {
        return collect(newConsumer(unique("group"), topic));
    }

    DefaultMQPullConsumer pullConsumer(String group) throws Exception {
        return start(new DefaultMQPullConsumer(group), true);
    }

    /**
     * One that only asks and ends before its first regular heartbeat. The one that 5.x sends as well when a
     * connection opens may reach an Apache broker after the good-bye, and leave a member there for two minutes that
     * reads nothing.
     */
    DefaultMQPullConsumer outsider(String group) throws Exception {
        return start(new DefaultMQPullConsumer(group), false);
    }

    private DefaultMQPullConsumer start(DefaultMQPullConsumer consumer, boolean isMember) throws Exception {
        configure(consumer);
        for (Method method : consumer.getClass().getMethods()) {
            if (!isMember && method.getName().equals("setEnableHeartbeatChannelEventListener")) {
                method.invoke(consumer, false);
            }
        }
        consumer.start();
        open.addFirst(consumer::shutdown);
        return consumer;
    }

    DefaultLitePullConsumer newLitePullConsumer(String group) {
        DefaultLitePullConsumer consumer = new DefaultLitePullConsumer(group);
        configure(consumer);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        open.addFirst(consumer::shutdown);
        return consumer;
    }

    /** Everything a topic's queues hold now, by queue, in queue order. */
    Map<Integer, List<MessageExt>> readAll(String topic, int queues) throws Exception {
        DefaultMQPullConsumer reader = pullConsumer(unique("reader"));
        Map<Integer, List<MessageExt>> all = new HashMap<>();
        for (int id = 0; id < queues; id++) {
            List<MessageExt> messages = new ArrayList<>();
            long offset = reader.minOffset(queue(topic, id));
            long end = reader.maxOffset(queue(topic, id));
            while (offset < end) {
                PullResult result = reader.pull(queue(topic, id), "*", offset, 32);
                if (result.getPullStatus() == PullStatus.FOUND) {
                    messages.addAll(result.getMsgFoundList());
                }
                offset = result.getNextBeginOffset();
            }
            all.put(id, messages);
        }
        return all;
    }

    // ---- what consumers own ----

    static Collection<MessageQueue> assigned(DefaultMQPushConsumer consumer) {
        return consumer.getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet().stream()
            .filter(q -> !q.getTopic().startsWith("%RETRY%")).toList();
    }

    /** Waits until the consumers share exactly the topic's queues, each having at least one. */
    static void awaitBalanced(int queues, DefaultMQPushConsumer... consumers) {
        await("balance of " + queues + " queues over " + consumers.length + " consumers",
            () -> isBalanced(queues, consumers));
    }

    static boolean isBalanced(int queues, DefaultMQPushConsumer... consumers) {
        List<MessageQueue> all = new ArrayList<>();
        for (DefaultMQPushConsumer consumer : consumers) {
            if (assigned(consumer).isEmpty()) {
                return false;
            }
            all.addAll(assigned(consumer));
        }
        return all.size() == queues && all.stream().distinct().count() == queues;
    }

    /** The sum of the offsets that the broker keeps for a group and topic. */
    long committed(String group, String topic) throws Exception {
        long sum = 0;
        for (var offsets : admin().examineConsumeStats(group, topic).getOffsetTable().entrySet()) {
            sum += offsets.getKey().getTopic().equals(topic) ? offsets.getValue().getConsumerOffset() : 0;
        }
        return sum;
    }

    // ---- waiting ----

    interface Condition {
        boolean holds() throws Exception;
    }

    static void await(String what, Condition condition) {
        await(what, LIMIT, condition);
    }

    /** Waits until the condition holds. Exceptions count as "not yet" and are shown at the end. */
    static void await(String what, Duration limit, Condition condition) {
        long end = System.nanoTime() + limit.toNanos();
        Throwable last = null;
        do {
            try {
                if (condition.holds()) {
                    return;
                }
                last = null;
            } catch (Exception e) {
                last = e;
            }
            try {
                Thread.sleep(20);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                fail("interrupted while waiting for " + what);
            }
        } while (System.nanoTime() < end);
        fail("no " + what + " within " + limit, last);
    }

    static long millisSince(long nanoTime) {
        return (System.nanoTime() - nanoTime) / 1_000_000;
    }

    /** The messages that a listener was given, in the order in which it was. */
    static final class Received {
        private final ConcurrentLinkedQueue<MessageExt> messages = new ConcurrentLinkedQueue<>();

        void addAll(Collection<MessageExt> more) {
            messages.addAll(more);
        }

        List<MessageExt> all() {
            return List.copyOf(messages);
        }

        List<String> bodies() {
            return messages.stream().map(Clients::text).toList();
        }

        List<String> sortedBodies() {
            return messages.stream().map(Clients::text).sorted().toList();
        }

        /** Waits for that many messages and returns all there are. */
        List<MessageExt> await(int count) {
            Clients.await(count + " messages", () -> {
                if (messages.size() < count) {
                    throw new IllegalStateException("only " + messages.size() + ", from " + messages.stream()
                        .map(it -> it.getTopic() + " " + it.getQueueId()).distinct().toList());
                }
                return true;
            });
            return all();
        }
    }

    /** Prints the end of the server's log under a failed test, before the server is closed. */
    static final class ServerLog implements AfterTestExecutionCallback {
        @Override
        public void afterTestExecution(ExtensionContext context) {
            Server server = ((Clients) context.getRequiredTestInstance()).server;
            if (context.getExecutionException().isPresent() && server != null) {
                System.out.println("FAILED " + context.getRequiredTestClass().getSimpleName() + ": "
                    + context.getDisplayName() + " (" + context.getExecutionException().get() + ")\n" + server.logTail());
            }
        }
    }
}
