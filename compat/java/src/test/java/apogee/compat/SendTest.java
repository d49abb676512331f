package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.reflect.Method;
import java.net.InetSocketAddress;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendCallback;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageClientIDSetter;
import org.apache.rocketmq.common.message.MessageDecoder;
import org.apache.rocketmq.common.message.MessageExt;
import org.junit.jupiter.api.Test;

class SendTest extends Clients {
    private static final int MESSAGE_ILLEGAL = 13;
    private static final int INVALID_PARAMETER = 29;

    @Test
    void a_sync_send_reports_queue_offset_and_both_ids() throws Exception {
        String topic = createTopic(2);
        DefaultMQProducer producer = producer();
        Set<String> ids = new HashSet<>();
        for (int i = 0; i < 5; i++) {
            Message message = message(topic, "m" + i);
            SendResult result = producer.send(message, queue(topic, 1));
            assertEquals(SendStatus.SEND_OK, result.getSendStatus());
            assertEquals(queue(topic, 1), result.getMessageQueue());
            assertEquals(i, result.getQueueOffset());
            assertEquals(MessageClientIDSetter.getUniqID(message), result.getMsgId());
            var where = MessageDecoder.decodeMessageId(result.getOffsetMsgId());
            assertEquals(new InetSocketAddress("127.0.0.1", server().brokerPort()), where.getAddress());
            assertTrue(ids.add(result.getOffsetMsgId()));
        }
        assertEquals(5, readAll(topic, 2).get(1).size());
    }

    @Test
    void messages_sent_one_after_another_go_round_all_queues() throws Exception {
        String topic = createTopic(4);
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 12; i++) {
            producer.send(message(topic, "m" + i));
        }
        readAll(topic, 4).values().forEach(messages -> assertEquals(3, messages.size()));
    }

    @Test
    void an_async_send_calls_back_with_the_same_facts() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        List<CompletableFuture<SendResult>> sends = new ArrayList<>();
        for (int i = 0; i < 100; i++) {
            CompletableFuture<SendResult> sent = new CompletableFuture<>();
            sends.add(sent);
            producer.send(message(topic, "m" + i), new SendCallback() {
                @Override
                public void onSuccess(SendResult result) {
                    sent.complete(result);
                }

                @Override
                public void onException(Throwable e) {
                    sent.completeExceptionally(e);
                }
            });
        }
        Set<Long> offsets = new HashSet<>();
        for (CompletableFuture<SendResult> sent : sends) {
            SendResult result = sent.get(30, TimeUnit.SECONDS);
            assertEquals(SendStatus.SEND_OK, result.getSendStatus());
            assertTrue(offsets.add(result.getQueueOffset()));
        }
        assertEquals(100, readAll(topic, 1).get(0).size());
    }

    @Test
    void one_way_messages_arrive() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        for (int i = 0; i < 20; i++) {
            producer.sendOneway(message(topic, "m" + i));
        }
        Received received = collect(topic);
        received.await(20);
        assertEquals(IntStream.range(0, 20).mapToObj(i -> "m" + i).sorted().toList(), received.sortedBodies());
    }

    @Test
    void a_batch_is_stored_as_its_messages_in_order() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        producer.send(message(topic, "before"));
        List<Message> batch = new ArrayList<>();
        for (int i = 0; i < 50; i++) {
            Message message = new Message(topic, "tag" + i % 2, "key" + i, bytes("b" + i));
            message.putUserProperty("index", String.valueOf(i));
            batch.add(message);
        }
        SendResult result = producer.send(batch);
        assertEquals(SendStatus.SEND_OK, result.getSendStatus());
        assertEquals(1, result.getQueueOffset());
        List<String> ids = List.of(result.getMsgId().split(","));
        List<String> offsetIds = List.of(result.getOffsetMsgId().split(","));
        assertEquals(50, ids.size());
        assertEquals(50, offsetIds.size());

        List<MessageExt> stored = readAll(topic, 1).get(0);
        assertEquals(51, stored.size());
        for (int i = 0; i < 50; i++) {
            MessageExt message = stored.get(i + 1);
            assertEquals("b" + i, text(message));
            assertEquals("tag" + i % 2, message.getTags());
            assertEquals("key" + i, message.getKeys());
            assertEquals(String.valueOf(i), message.getUserProperty("index"));
            assertEquals(i + 1, message.getQueueOffset());
            assertEquals(ids.get(i), message.getMsgId());
            assertEquals("b" + i, text(admin().viewMessage(topic, offsetIds.get(i))));
        }
    }

    /** Every compression the client has: zlib, and from 5.x LZ4 and ZSTD as well. */
    @Test
    void large_bodies_travel_compressed_and_arrive_whole() throws Exception {
        String topic = createTopic(1);
        byte[] body = bytes("Ünïcödé and repetition ".repeat(10_000));
        List<Object> types = compressionTypes();
        for (Object type : types) {
            DefaultMQProducer producer = newProducer();
            if (type != null) {
                producer.getClass().getMethod("setCompressType", type.getClass()).invoke(producer, type);
            }
            producer.start();
            producer.send(new Message(topic, body));
        }
        List<MessageExt> stored = readAll(topic, 1).get(0);
        assertEquals(types.size(), stored.size());
        for (MessageExt message : stored) {
            assertArrayEquals(body, message.getBody());
            assertTrue(message.getStoreSize() < body.length / 10, "stored as sent: compressed");
        }
        Received pushed = collect(topic);
        pushed.await(types.size()).forEach(message -> assertArrayEquals(body, message.getBody()));
    }

    private static List<Object> compressionTypes() throws Exception {
        for (Method method : DefaultMQProducer.class.getMethods()) {
            if (method.getName().equals("setCompressType")) {
                List<Object> types = List.of(method.getParameterTypes()[0].getEnumConstants());
                assertEquals(3, types.size());
                return types;
            }
        }
        List<Object> only = new ArrayList<>();
        only.add(null);
        return only;
    }

    @Test
    void properties_tags_keys_and_bodies_come_back_as_they_were_sent() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        Message rich = new Message(topic, "標籤", "ключ1 ключ2", 7, bytes("тело 消息 \u0000 🚀"), true);
        rich.putUserProperty("plain", "value");
        rich.putUserProperty("имя", "значение ✓");
        rich.putUserProperty("spaces", "  a b  ");
        rich.setBuyerId("buyer");
        byte[] all = new byte[256];
        for (int i = 0; i < all.length; i++) {
            all[i] = (byte) i;
        }
        long before = System.currentTimeMillis();
        producer.send(rich);
        producer.send(new Message(topic, new byte[] {0}));
        producer.send(new Message(topic, all));

        List<MessageExt> got = collect(topic).await(3);
        MessageExt first = got.stream().filter(m -> m.getQueueOffset() == 0).findFirst().orElseThrow();
        assertEquals("тело 消息 \u0000 🚀", text(first));
        assertEquals("標籤", first.getTags());
        assertEquals("ключ1 ключ2", first.getKeys());
        assertEquals(7, first.getFlag());
        assertEquals("value", first.getUserProperty("plain"));
        assertEquals("значение ✓", first.getUserProperty("имя"));
        assertEquals("  a b  ", first.getUserProperty("spaces"));
        assertEquals("buyer", first.getBuyerId());
        assertNull(first.getUserProperty("absent"));
        assertEquals(topic, first.getTopic());
        assertEquals(0, first.getReconsumeTimes());
        assertEquals(MessageClientIDSetter.getUniqID(rich), first.getMsgId());
        assertTrue(Math.abs(first.getBornTimestamp() - before) < 30_000);
        assertTrue(first.getStoreTimestamp() >= before - 1000);
        assertEquals("127.0.0.1", ((InetSocketAddress) first.getStoreHost()).getAddress().getHostAddress());
        assertNotNull(first.getBornHost());
        MessageExt second = got.stream().filter(m -> m.getQueueOffset() == 1).findFirst().orElseThrow();
        assertArrayEquals(new byte[] {0}, second.getBody());
        assertNull(second.getTags());
        MessageExt third = got.stream().filter(m -> m.getQueueOffset() == 2).findFirst().orElseThrow();
        assertArrayEquals(all, third.getBody());
    }

    @Test
    void a_body_of_almost_4_MiB_is_accepted() throws Exception {
        String topic = createTopic(1);
        byte[] body = noise((4 << 20) - 4096);
        producer().send(new Message(topic, body));
        assertArrayEquals(body, collect(topic).await(1).get(0).getBody());
    }

    @Test
    void a_body_larger_than_the_server_takes_is_refused_as_illegal() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = newProducer();
        producer.setMaxMessageSize(8 << 20);
        producer.start();
        MQBrokerException refused = assertThrows(MQBrokerException.class,
            () -> producer.send(new Message(topic, noise(5 << 20))));
        assertEquals(MESSAGE_ILLEGAL, refused.getResponseCode());
        producer.send(message(topic, "the connection still works"));
        assertEquals(1, readAll(topic, 1).get(0).size());
    }

    @Test
    void a_queue_that_the_topic_does_not_have_is_refused() throws Exception {
        String topic = createTopic(2);
        DefaultMQProducer producer = producer();
        MQBrokerException refused = assertThrows(MQBrokerException.class,
            () -> producer.send(message(topic, "m"), queue(topic, 99)));
        assertTrue(Set.of(INVALID_PARAMETER, 1).contains(refused.getResponseCode()), refused.toString()); // 1: 4.9
    }

    @Test
    void four_threads_of_one_producer_get_offsets_without_gaps() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = producer();
        TreeMap<Long, String> byOffset = new TreeMap<>();
        List<Thread> threads = new ArrayList<>();
        for (int t = 0; t < 4; t++) {
            int thread = t;
            threads.add(new Thread(() -> {
                for (int i = 0; i < 100; i++) {
                    String body = thread + "-" + i;
                    try {
                        SendResult result = producer.send(message(topic, body));
                        synchronized (byOffset) {
                            byOffset.put(result.getQueueOffset(), body);
                        }
                    } catch (Exception e) {
                        throw new IllegalStateException(e);
                    }
                }
            }));
        }
        threads.forEach(Thread::start);
        for (Thread thread : threads) {
            thread.join();
        }
        List<String> stored = readAll(topic, 1).get(0).stream().map(Clients::text).toList();
        assertEquals(400, stored.size());
        assertEquals(List.copyOf(byOffset.values()), stored);
    }

    private static byte[] noise(int length) {
        byte[] body = new byte[length];
        new Random(1).nextBytes(body);
        return body;
    }
}
