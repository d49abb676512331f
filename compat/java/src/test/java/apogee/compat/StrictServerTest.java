package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Map;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;

/** A server that creates nothing unasked and takes small messages only. */
class StrictServerTest extends Clients {
    private static Server own;

    @Override
    Server startServer() {
        synchronized (StrictServerTest.class) {
            if (own == null) {
                own = Server.start(Map.of(
                    "autoCreateTopicEnable", "false",
                    "autoCreateSubscriptionGroup", "false",
                    "maxMessageSize", "65536"));
            }
            return own;
        }
    }

    @AfterAll
    static void stop() {
        if (own != null) {
            own.close();
        }
    }

    @Test
    void sending_to_an_unknown_topic_fails_for_want_of_a_route() throws Exception {
        DefaultMQProducer producer = producer();
        MQClientException refused = assertThrows(MQClientException.class,
            () -> producer.send(message(unique("unknown"), "m")));
        assertEquals(10005, refused.getResponseCode()); // ClientErrorCode.NOT_FOUND_TOPIC_EXCEPTION
        String topic = createTopic(1);
        producer.send(message(topic, "a topic made by an admin works"));
    }

    @Test
    void sending_straight_to_the_broker_fails_with_topic_not_exist() throws Exception {
        String known = createTopic(1);
        DefaultMQProducer producer = producer();
        producer.send(message(known, "m")); // now the producer knows the broker
        String unknown = unique("unknown");
        MQBrokerException refused = assertThrows(MQBrokerException.class,
            () -> producer.send(message(unknown, "m"), queue(unknown, 0)));
        assertEquals(17, refused.getResponseCode());
    }

    @Test
    void a_body_beyond_the_configured_size_is_illegal() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer producer = newProducer();
        producer.setCompressMsgBodyOverHowmuch(1 << 20);
        producer.start();
        producer.send(message(topic, "x".repeat(65_000)));
        MQBrokerException refused = assertThrows(MQBrokerException.class,
            () -> producer.send(message(topic, "x".repeat(70_000))));
        assertEquals(13, refused.getResponseCode());
    }

    @Test
    void an_unknown_group_may_not_pull() throws Exception {
        String topic = createTopic(1);
        DefaultMQPullConsumer consumer = pullConsumer(unique("group"));
        MQBrokerException refused = assertThrows(MQBrokerException.class,
            () -> consumer.pull(queue(topic, 0), "*", 0, 32));
        assertEquals(26, refused.getResponseCode());
        assertTrue(refused.getErrorMessage().contains("subscription group"), refused.getErrorMessage());
    }
}
