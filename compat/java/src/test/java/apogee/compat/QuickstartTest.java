package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.Map;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

/** A server that was told nothing, not even its address, and a topic that nobody created. */
class QuickstartTest extends Clients {
    @Override
    Server startServer() {
        return Server.start(Map.of("brokerIP1", ""));
    }

    @AfterEach
    void closeServer() throws Exception {
        closeClients();
        server().close();
    }

    @Test
    void what_is_sent_to_a_new_topic_is_received_by_a_new_group() throws Exception {
        String topic = unique("quickstart");
        DefaultMQProducer producer = producer();
        SendResult result = producer.send(message(topic, "hello"));
        assertEquals(SendStatus.SEND_OK, result.getSendStatus());
        Received received = collect(topic);
        received.await(1);
        assertEquals("hello", text(received.all().get(0)));
        assertEquals("hello", text(admin().viewMessage(topic, result.getOffsetMsgId())));
        assertEquals("hello", text(admin().viewMessage(topic, result.getMsgId())));
    }
}
