package apogee.compat;

import java.util.Map;
import org.junit.jupiter.api.Test;

/** The same with flushDiskType=SYNC_FLUSH, where SEND_OK means "on disk". */
class SyncFlushTest extends OutageTest {
    @Override
    Map<String, String> settings() {
        return Map.of("flushDiskType", "SYNC_FLUSH");
    }

    @Test
    void a_killed_server_that_flushes_each_message_has_all_that_it_acknowledged() throws Exception {
        String topic = createTopic(QUEUES);
        startSending(topic);
        awaitAcknowledged(200);
        server().kill();
        server().start();
        awaitAcknowledged(200);
        stopSending();
        checkStored(topic);
    }
}
