package compat

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rocketmq "github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

func TestASyncSendReportsQueueOffsetAndIds(t *testing.T) {
	t.Parallel()
	topic := createTopic(t, shared, 1)
	p := newProducer(t, shared)
	for i := range 5 {
		m := message(topic, fmt.Sprint("m", i))
		result, err := p.SendSync(context.Background(), m)
		must(t, err)
		if result.Status != primitive.SendOK || result.QueueOffset != int64(i) || result.MessageQueue.QueueId != 0 ||
			result.MessageQueue.BrokerName != brokerName || len(result.OffsetMsgID) != 32 ||
			result.MsgID != m.GetProperty(primitive.PropertyUniqueClientMessageIdKeyIndex) {
			t.Fatalf("send %d: %v", i, result)
		}
	}
}

func TestPropertiesTagsKeysAndBodyComeBack(t *testing.T) {
	t.Parallel()
	topic := createTopic(t, shared, 1)
	large := strings.Repeat("Ünïcödé, compressed ", 5000)
	m := message(topic, large).WithTag("標籤").WithKeys([]string{"ключ1", "ключ2"})
	m.WithProperty("имя", "значение ✓")
	_, err := newProducer(t, shared).SendSync(context.Background(), m)
	must(t, err)
	r, _ := collect(t, shared, unique("group"), topic, "*")
	got := r.await(t, 1)[0]
	if string(got.Body) != large || got.GetTags() != "標籤" || got.GetKeys() != "ключ1 ключ2" ||
		got.GetProperty("имя") != "значение ✓" || got.Topic != topic || got.ReconsumeTimes != 0 {
		t.Fatalf("%v", got)
	}
}

func TestAsyncSendsCallBack(t *testing.T) {
	t.Parallel()
	topic := createTopic(t, shared, 2)
	p := newProducer(t, shared)
	results := make(chan error, 100)
	for i := range 100 {
		must(t, p.SendAsync(context.Background(), func(_ context.Context, result *primitive.SendResult, err error) {
			if err == nil && result.Status != primitive.SendOK {
				err = errors.New(result.String())
			}
			results <- err
		}, message(topic, fmt.Sprint("m", i))))
	}
	for range 100 {
		select {
		case err := <-results:
			must(t, err)
		case <-time.After(limit):
			t.Fatal("a callback is missing")
		}
	}
	r, _ := collect(t, shared, unique("group"), topic, "*")
	r.await(t, 100)
	sameSet(t, numbered("m", 100), r.bodies())
}

func TestOneWayMessagesArrive(t *testing.T) {
	t.Parallel()
	topic := createTopic(t, shared, 1)
	p := newProducer(t, shared)
	for i := range 20 {
		must(t, p.SendOneWay(context.Background(), message(topic, fmt.Sprint("m", i))))
	}
	r, _ := collect(t, shared, unique("group"), topic, "*")
	r.await(t, 20)
	sameSet(t, numbered("m", 20), r.bodies())
}

func TestABatchArrivesAsItsMessages(t *testing.T) {
	t.Parallel()
	topic := createTopic(t, shared, 1)
	var batch []*primitive.Message
	for i := range 30 {
		batch = append(batch, message(topic, fmt.Sprint("m", i)).WithTag("tag").WithKeys([]string{fmt.Sprint("key", i)}))
	}
	result, err := newProducer(t, shared).SendSync(context.Background(), batch...)
	must(t, err)
	if result.Status != primitive.SendOK || result.QueueOffset != 0 || strings.Count(result.OffsetMsgID, ",") != 29 {
		t.Fatal(result)
	}
	r, _ := collect(t, shared, unique("group"), topic, "tag")
	for _, m := range r.await(t, 30) {
		if string(m.Body) != fmt.Sprint("m", m.QueueOffset) || m.GetKeys() != fmt.Sprint("key", m.QueueOffset) {
			t.Fatalf("%v", m)
		}
	}
}

func TestAnUnknownTopicIsCreatedBySending(t *testing.T) {
	t.Parallel()
	topic := unique("auto")
	_, err := newProducer(t, shared).SendSync(context.Background(), message(topic, "m"))
	must(t, err)
	a, err := admin.NewAdmin(admin.WithResolver(shared.resolver()))
	must(t, err)
	defer a.Close()
	await(t, "route", func() bool {
		queues, err := a.FetchPublishMessageQueues(context.Background(), topic)
		return err == nil && len(queues) == 4
	})
}

func TestAnAdminCreatesListsAndDeletesATopic(t *testing.T) {
	t.Parallel()
	topic := createTopic(t, shared, 3)
	a, err := admin.NewAdmin(admin.WithResolver(shared.resolver()))
	must(t, err)
	defer a.Close()
	listed := func() bool {
		list, err := a.FetchAllTopicList(context.Background())
		must(t, err)
		for _, name := range list.TopicList {
			if name == topic {
				return true
			}
		}
		return false
	}
	await(t, "topic in the list", listed)
	must(t, a.DeleteTopic(context.Background(), admin.WithTopicDelete(topic),
		admin.WithBrokerAddrDelete(shared.brokerAddr()), admin.WithNameSrvAddr([]string{shared.nameServerAddr()})))
	await(t, "deletion", func() bool { return !listed() })
}

func TestATagFilterAOrBPassesJustThose(t *testing.T) {
	t.Parallel()
	topic := createTopic(t, shared, 2)
	r, _ := collect(t, shared, unique("group"), topic, "A || B")
	p := newProducer(t, shared)
	var want []string
	for i := range 30 {
		tag := string("ABC"[i%3])
		if tag != "C" {
			want = append(want, fmt.Sprint(tag, i))
		}
		_, err := p.SendSync(context.Background(), message(topic, fmt.Sprint(tag, i)).WithTag(tag))
		must(t, err)
	}
	r.await(t, len(want))
	sameSet(t, want, r.bodies())
}

func TestThreeConsumersShare3000MessagesWithNoneLost(t *testing.T) {
	t.Parallel()
	const count = 3000
	topic := createTopic(t, shared, 6)
	group := unique("group")
	var all []*received
	for range 3 {
		r, _ := collect(t, shared, group, topic, "*")
		all = append(all, r)
	}
	p := newProducer(t, shared)
	sent := 0
	// Balanced is when each has been given something of late; then the count starts.
	await(t, "messages at each of the three", func() bool {
		_, err := p.SendSync(context.Background(), message(topic, fmt.Sprint("warm", sent)))
		must(t, err)
		sent++
		return len(all[0].all()) > 0 && len(all[1].all()) > 0 && len(all[2].all()) > 0
	})
	var senders sync.WaitGroup
	var failure atomic.Value
	for s := range 4 {
		senders.Add(1)
		go func() {
			defer senders.Done()
			for i := s; i < count; i += 4 {
				if _, err := p.SendSync(context.Background(), message(topic, fmt.Sprint("m", i))); err != nil {
					failure.Store(err)
				}
			}
		}()
	}
	senders.Wait()
	if err := failure.Load(); err != nil {
		t.Fatal(err)
	}
	await(t, "every message", func() bool {
		seen := map[string]bool{}
		for _, r := range all {
			for _, body := range r.bodies() {
				seen[body] = true
			}
		}
		return len(seen) == count+sent
	})
	for _, r := range all {
		if len(r.all()) < count/10 {
			t.Fatalf("one consumer got only %d", len(r.all()))
		}
	}
}

func TestAnOrderedConsumerKeepsTheOrderOfEachKey(t *testing.T) {
	t.Parallel()
	topic := createTopic(t, shared, 4)
	p := newProducer(t, shared, producer.WithQueueSelector(producer.NewHashQueueSelector()))
	group := unique("group")
	var lock sync.Mutex
	next := map[string]int{}
	var violations []string
	busy := map[int]bool{}
	listen := func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		queue := messages[0].Queue.QueueId
		lock.Lock()
		if busy[queue] {
			violations = append(violations, fmt.Sprint("queue consumed twice at once: ", queue))
		}
		busy[queue] = true
		for _, m := range messages {
			number, _ := strconv.Atoi(string(m.Body))
			if key := m.GetShardingKey(); number > next[key] {
				violations = append(violations, fmt.Sprintf("%s: %d before %d", key, number, next[key]))
			} else if number == next[key] {
				next[key]++
			}
		}
		lock.Unlock()
		time.Sleep(time.Millisecond)
		lock.Lock()
		busy[queue] = false
		lock.Unlock()
		return consumer.ConsumeSuccess, nil
	}
	startConsumer(t, shared, group, topic, "*", listen, consumer.WithConsumerOrder(true))
	send := func(from, to int) {
		for i := from; i < to; i++ {
			for key := range 8 {
				_, err := p.SendSync(context.Background(), message(topic, fmt.Sprint(i)).WithShardingKey(fmt.Sprint("k", key)))
				must(t, err)
			}
		}
	}
	consumed := func(to int) func() bool {
		return func() bool {
			lock.Lock()
			defer lock.Unlock()
			for key := range 8 {
				if next[fmt.Sprint("k", key)] != to {
					return false
				}
			}
			return true
		}
	}
	send(0, 20)
	await(t, "first 20 of each key", consumed(20))
	stop := startConsumer(t, shared, group, topic, "*", listen, consumer.WithConsumerOrder(true))
	send(20, 40)
	await(t, "first 40 of each key", consumed(40))
	stop()
	send(40, 60)
	await(t, "all 60 of each key", consumed(60))
	lock.Lock()
	defer lock.Unlock()
	if len(violations) > 0 {
		t.Fatal(violations)
	}
}

func TestARefusedMessageComesAgainAndIsDeadInTheEnd(t *testing.T) {
	t.Parallel()
	topic := createTopic(t, shared, 1)
	group := unique("group")
	m := message(topic, "poison").WithTag("tag").WithKeys([]string{"key"})
	m.WithProperty("mine", "kept")
	result, err := newProducer(t, shared).SendSync(context.Background(), m)
	must(t, err)
	attempts := &received{}
	startConsumer(t, shared, group, topic, "*", func(_ context.Context, m ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		attempts.add(m...)
		return consumer.ConsumeRetryLater, nil
	}, consumer.WithMaxReconsumeTimes(2))
	for i, m := range attempts.await(t, 3) {
		if m.ReconsumeTimes != int32(i) || string(m.Body) != "poison" || m.GetTags() != "tag" || m.GetKeys() != "key" ||
			m.GetProperty("mine") != "kept" || m.Topic != topic || m.MsgId != result.MsgID {
			t.Fatalf("attempt %d: %v", i, m)
		}
	}
	dlq := "%DLQ%" + group
	a, err := admin.NewAdmin(admin.WithResolver(shared.resolver()))
	must(t, err)
	defer a.Close()
	await(t, "dead letter topic", func() bool {
		queues, err := a.FetchPublishMessageQueues(context.Background(), dlq)
		return err == nil && len(queues) == 1
	})
	dead, _ := collect(t, shared, unique("group"), dlq, "*")
	if got := dead.await(t, 1)[0]; string(got.Body) != "poison" || got.GetProperty("mine") != "kept" {
		t.Fatalf("%v", got)
	}
	if n := len(attempts.all()); n != 3 {
		t.Fatalf("%d attempts instead of 3", n)
	}
}

func TestBroadcastingGivesEveryMessageToBoth(t *testing.T) {
	t.Parallel()
	topic := createTopic(t, shared, 2)
	group := unique("group")
	one, _ := collect(t, shared, group, topic, "*", consumer.WithConsumerModel(consumer.BroadCasting))
	two, _ := collect(t, shared, group, topic, "*", consumer.WithConsumerModel(consumer.BroadCasting))
	p := newProducer(t, shared)
	for i := range 20 {
		_, err := p.SendSync(context.Background(), message(topic, fmt.Sprint("m", i)))
		must(t, err)
	}
	for _, r := range []*received{one, two} {
		r.await(t, 20)
		sameSet(t, numbered("m", 20), r.bodies())
	}
}

func TestAPullConsumerReadsFromAnOffsetAndPolls(t *testing.T) {
	t.Parallel()
	topic := createTopic(t, shared, 1)
	p := newProducer(t, shared)
	for i := range 10 {
		_, err := p.SendSync(context.Background(), message(topic, fmt.Sprint("m", i)))
		must(t, err)
	}
	c, err := rocketmq.NewPullConsumer(consumer.WithNsResolver(shared.resolver()), consumer.WithGroupName(unique("group")),
		consumer.WithInstance(unique("member")), consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
	must(t, err)
	must(t, c.Subscribe(topic, consumer.MessageSelector{Type: consumer.TAG, Expression: "*"}))
	must(t, c.Start())
	t.Cleanup(func() { _ = c.Shutdown() })

	queue := &primitive.MessageQueue{Topic: topic, BrokerName: brokerName, QueueId: 0}
	result, err := c.PullFrom(context.Background(), queue, 4, 3)
	must(t, err)
	if result.Status != primitive.PullFound || result.NextBeginOffset != 7 || result.MinOffset != 0 || result.MaxOffset != 10 ||
		len(result.GetMessageExts()) != 3 || string(result.GetMessageExts()[0].Body) != "m4" {
		t.Fatalf("%v", result)
	}

	var polled []string
	await(t, "ten polled messages", func() bool {
		request, err := c.Poll(context.Background(), time.Second)
		if err != nil {
			return false
		}
		for _, m := range request.GetMsgList() {
			polled = append(polled, string(m.Body))
		}
		c.ACK(context.Background(), request, consumer.ConsumeSuccess)
		return len(polled) >= 10
	})
	sameSet(t, numbered("m", 10), polled)
}

func TestARestartedConsumerResumesWhereTheGroupStopped(t *testing.T) {
	t.Parallel()
	topic := createTopic(t, shared, 2)
	group := unique("group")
	p := newProducer(t, shared)
	send := func(stem string) {
		for _, body := range numbered(stem, 10) {
			_, err := p.SendSync(context.Background(), message(topic, body))
			must(t, err)
		}
	}
	send("first")
	before, stop := collect(t, shared, group, topic, "*")
	before.await(t, 10)
	stop()
	send("second")
	after, _ := collect(t, shared, group, topic, "*")
	after.await(t, 10)
	sameSet(t, numbered("second", 10), after.bodies())
}

func TestADelayedMessageDoesNotArriveBeforeItsTime(t *testing.T) {
	t.Parallel()
	topic := createTopic(t, shared, 1)
	r, _ := collect(t, shared, unique("group"), topic, "*")
	p := newProducer(t, shared)
	sent := time.Now().UnixMilli()
	_, err := p.SendSync(context.Background(), message(topic, "3s").WithDelayTimeLevel(2))
	must(t, err)
	_, err = p.SendSync(context.Background(), message(topic, "now"))
	must(t, err)
	got := r.await(t, 2)
	if delay := got[1].StoreTimestamp - sent; string(got[1].Body) != "3s" || delay < 2900 || delay > 20_000 {
		t.Fatalf("%v, delivered after %d ms", r.bodies(), delay)
	}
}

func TestAWaitingConsumerGetsAMessageAtOnce(t *testing.T) {
	t.Parallel()
	topic := createTopic(t, shared, 1)
	p := newProducer(t, shared)
	r, _ := collect(t, shared, unique("group"), topic, "*")
	fast := 0
	for i := range 11 {
		start := time.Now()
		_, err := p.SendSync(context.Background(), message(topic, fmt.Sprint("m", i)))
		must(t, err)
		r.await(t, i+1)
		if time.Since(start) < 500*time.Millisecond {
			fast++
		}
		time.Sleep(150 * time.Millisecond) // the consumer must be waiting, not busy
	}
	if fast < 6 {
		t.Fatalf("only %d of 11 messages arrived within half a second", fast)
	}
}

func TestARestartUnderLoadLosesNothing(t *testing.T) {
	t.Parallel()
	s, err := startServer()
	must(t, err)
	t.Cleanup(s.close)
	defer func() {
		if t.Failed() {
			t.Log(s.logTail())
		}
	}()
	topic := createTopic(t, s, 4)
	r, _ := collect(t, s, unique("group"), topic, "*")
	p := newProducer(t, s, producer.WithRetry(0), producer.WithSendMsgTimeout(3*time.Second))
	var lock sync.Mutex
	acknowledged := map[string]bool{}
	acks := func() int {
		lock.Lock()
		defer lock.Unlock()
		return len(acknowledged)
	}
	done := make(chan struct{})
	var sender sync.WaitGroup
	sender.Add(1)
	go func() {
		defer sender.Done()
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			body := fmt.Sprint("m", i)
			result, err := p.SendSync(context.Background(), message(topic, body))
			if err == nil && result.Status == primitive.SendOK {
				lock.Lock()
				acknowledged[body] = true
				lock.Unlock()
			} else {
				time.Sleep(100 * time.Millisecond)
			}
		}
	}()
	stopSending := sync.OnceFunc(func() { close(done); sender.Wait() })
	defer stopSending()
	await(t, "300 sends", func() bool { return acks() >= 300 })
	must(t, s.stop())
	must(t, s.start())
	before := acks()
	await(t, "300 sends after the restart", func() bool { return acks() >= before+300 })
	stopSending()
	complete := func(r *received) func() bool {
		return func() bool {
			got := distinct(r.bodies())
			for body := range acknowledged {
				if !got[body] {
					return false
				}
			}
			return true
		}
	}
	await(t, "every acknowledged message at the old consumer", complete(r))
	fresh, _ := collect(t, s, unique("group"), topic, "*")
	await(t, "every acknowledged message at a fresh consumer", complete(fresh))
	if len(distinct(fresh.bodies())) != len(fresh.bodies()) {
		t.Fatal("a message is stored twice")
	}
}
