package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.MessageExt;
import org.junit.jupiter.api.AfterEach;

/** What the tests share that stop or kill a server of their own while a producer is at work. */
abstract class OutageTest extends Clients {
    static final int QUEUES = 4;

    private final AtomicBoolean enough = new AtomicBoolean();
    private Thread sender;
    private Throwable senderFailure;

    /** What the server acknowledged: body to the place that it named. */
    final Map<String, SendResult> acknowledged = new ConcurrentHashMap<>();
    final AtomicInteger attempts = new AtomicInteger();

    /** The broker.conf keys of this test's server. */
    abstract Map<String, String> settings();

    @Override
    final Server startServer() {
        return Server.start(settings());
    }

    @AfterEach
    void closeServer() throws Exception {
        enough.set(true);
        if (sender != null) {
            sender.join();
        }
        closeClients();
        server().close();
    }

    /**
     * Sends without pause, every attempt with a body of its own and none repeated by the client, so that each
     * message is stored at most once, and exactly once if acknowledged.
     */
    void startSending(String topic) throws Exception {
        DefaultMQProducer producer = newProducer();
        producer.setRetryTimesWhenSendFailed(0);
        producer.setSendMsgTimeout(3000);
        producer.start();
        sender = new Thread(() -> {
            while (!enough.get()) {
                String body = String.valueOf(attempts.getAndIncrement());
                try {
                    SendResult result = producer.send(message(topic, body));
                    if (result.getSendStatus() == SendStatus.SEND_OK) {
                        acknowledged.put(body, result);
                    }
                } catch (InterruptedException e) {
                    senderFailure = e;
                    return;
                } catch (Exception e) {
                    try {
                        Thread.sleep(100); // the server is away
                    } catch (InterruptedException interrupted) {
                        senderFailure = interrupted;
                        return;
                    }
                }
            }
        });
        sender.start();
    }

    void stopSending() throws Exception {
        enough.set(true);
        sender.join();
        assertEquals(null, senderFailure);
    }

    void awaitAcknowledged(int more) {
        int goal = acknowledged.size() + more;
        await(more + " more acknowledged sends", () -> acknowledged.size() >= goal);
    }

    /** Reads the topic with a fresh consumer and compares it with what was acknowledged. */
    void checkStored(String topic) throws Exception {
        Set<String> seen = new HashSet<>();
        List<String> wrong = new ArrayList<>();
        for (var queue : readAll(topic, QUEUES).entrySet()) {
            int last = -1;
            long offset = 0;
            for (MessageExt message : queue.getValue()) {
                String body = text(message);
                if (!seen.add(body)) {
                    wrong.add(body + " is there twice");
                }
                if (message.getQueueOffset() != offset++) {
                    wrong.add(body + " has offset " + message.getQueueOffset() + ", not the next");
                }
                if (Integer.parseInt(body) <= last) {
                    wrong.add(body + " after " + last + " in queue " + queue.getKey());
                }
                last = Integer.parseInt(body);
                SendResult result = acknowledged.get(body);
                if (result != null && (result.getQueueOffset() != message.getQueueOffset()
                    || result.getMessageQueue().getQueueId() != queue.getKey()
                    || !result.getMsgId().equals(message.getMsgId()))) {
                    wrong.add(body + " is not where the send result said");
                }
            }
        }
        acknowledged.keySet().stream().filter(body -> !seen.contains(body)).forEach(body -> wrong.add(body + " is lost"));
        assertEquals(List.of(), wrong.subList(0, Math.min(wrong.size(), 20)), wrong.size() + " faults among "
            + acknowledged.size() + " acknowledged messages");
        assertTrue(seen.size() <= attempts.get());
    }

    /** A consumer that lives through the outage. */
    Received startConsumer(String group, String topic) throws Exception {
        DefaultMQPushConsumer consumer = newConsumer(group, topic);
        Received received = collect(consumer);
        awaitBalanced(QUEUES, consumer);
        return received;
    }

    void awaitConsumed(Received received) {
        await("every acknowledged message at the consumer",
            () -> new HashSet<>(received.bodies()).containsAll(acknowledged.keySet()));
    }
}
