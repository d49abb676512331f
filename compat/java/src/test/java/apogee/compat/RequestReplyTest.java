package apogee.compat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.exception.RequestTimeoutException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.RequestCallback;
import org.apache.rocketmq.client.utils.MessageUtil;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.junit.jupiter.api.Test;

class RequestReplyTest extends Clients {

    /** A consumer that answers each request with its body in capitals. */
    private void startResponder(String topic) throws Exception {
        DefaultMQProducer replies = producer();
        DefaultMQPushConsumer responder = newConsumer(unique("responders"), topic);
        responder.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            for (MessageExt request : messages) {
                try {
                    Message reply = MessageUtil.createReplyMessage(request, bytes(text(request).toUpperCase()));
                    replies.send(reply, 10_000);
                } catch (Exception e) {
                    throw new IllegalStateException(e);
                }
            }
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        responder.start();
        awaitBalanced(1, responder);
    }

    @Test
    void a_request_gets_its_reply() throws Exception {
        String topic = createTopic(1);
        startResponder(topic);
        DefaultMQProducer requester = producer();
        for (int i = 0; i < 5; i++) {
            Message reply = requester.request(message(topic, "request " + i), 30_000);
            assertEquals("REQUEST " + i, text(reply));
        }
    }

    @Test
    void an_async_request_gets_its_reply() throws Exception {
        String topic = createTopic(1);
        startResponder(topic);
        CompletableFuture<Message> replied = new CompletableFuture<>();
        producer().request(message(topic, "async"), new RequestCallback() {
            @Override
            public void onSuccess(Message reply) {
                if (reply != null) { // the client also calls this, with null, when the request has been sent
                    replied.complete(reply);
                }
            }

            @Override
            public void onException(Throwable e) {
                replied.completeExceptionally(e);
            }
        }, 30_000);
        assertEquals("ASYNC", text(replied.get(30, TimeUnit.SECONDS)));
    }

    @Test
    void a_request_that_nobody_answers_times_out() throws Exception {
        String topic = createTopic(1);
        DefaultMQProducer requester = producer();
        assertThrows(RequestTimeoutException.class, () -> requester.request(message(topic, "anyone?"), 2_000));
    }
}
