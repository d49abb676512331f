package apogee.compat;

import java.util.Map;
import org.junit.jupiter.api.Test;

/** kill -9 and a new start on the same data. */
class KillTest extends OutageTest {
    @Override
    Map<String, String> settings() {
        return Map.of();
    }

    @Test
    void a_killed_server_has_every_message_that_it_acknowledged() throws Exception {
        String topic = createTopic(QUEUES);
        String group = unique("group");
        Received received = startConsumer(group, topic);
        startSending(topic);
        for (int round = 0; round < 2; round++) {
            awaitAcknowledged(500);
            server().kill();
            server().start();
        }
        awaitAcknowledged(500);
        stopSending();
        awaitConsumed(received);
        checkStored(topic);
    }
}
