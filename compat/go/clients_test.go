package compat

import (
	"context"
	"fmt"
	"sort"
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

var counter atomic.Int64

// unique makes a topic or group name that no other test uses.
func unique(stem string) string {
	return fmt.Sprintf("%s_%d_%d", stem, time.Now().UnixMilli()%1_000_000_000, counter.Add(1))
}

func message(topic, body string) *primitive.Message {
	return primitive.NewMessage(topic, []byte(body))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// await waits for a condition, at most for the limit of the suite.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("no %s within %v", what, limit)
}

// createTopic makes a topic and waits until the name server shows it.
func createTopic(t *testing.T, s *server, queues int) string {
	t.Helper()
	topic := unique("topic")
	a, err := admin.NewAdmin(admin.WithResolver(s.resolver()))
	must(t, err)
	defer a.Close()
	must(t, a.CreateTopic(context.Background(), admin.WithTopicCreate(topic), admin.WithBrokerAddrCreate(s.brokerAddr()),
		admin.WithReadQueueNums(queues), admin.WithWriteQueueNums(queues)))
	await(t, "route of "+topic, func() bool {
		found, err := a.FetchPublishMessageQueues(context.Background(), topic)
		return err == nil && len(found) == queues
	})
	return topic
}

func newProducer(t *testing.T, s *server, options ...producer.Option) rocketmq.Producer {
	t.Helper()
	name := unique("producers")
	p, err := rocketmq.NewProducer(append([]producer.Option{
		producer.WithNsResolver(s.resolver()), producer.WithGroupName(name), producer.WithInstanceName(name),
		producer.WithSendMsgTimeout(10 * time.Second)}, options...)...)
	must(t, err)
	must(t, p.Start())
	t.Cleanup(func() { _ = p.Shutdown() })
	return p
}

// received is what a listener was given, in the order in which it was.
type received struct {
	lock     sync.Mutex
	messages []*primitive.MessageExt
}

func (r *received) add(messages ...*primitive.MessageExt) {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.messages = append(r.messages, messages...)
}

func (r *received) all() []*primitive.MessageExt {
	r.lock.Lock()
	defer r.lock.Unlock()
	return append([]*primitive.MessageExt(nil), r.messages...)
}

func (r *received) bodies() []string {
	var bodies []string
	for _, m := range r.all() {
		bodies = append(bodies, string(m.Body))
	}
	return bodies
}

func (r *received) await(t *testing.T, count int) []*primitive.MessageExt {
	t.Helper()
	await(t, fmt.Sprintf("%d messages", count), func() bool { return len(r.all()) >= count })
	return r.all()
}

type listener = func(context.Context, ...*primitive.MessageExt) (consumer.ConsumeResult, error)

// startConsumer starts a push consumer that reads from the first offset. The returned function stops it early.
func startConsumer(t *testing.T, s *server, group, topic, tags string, listen listener, options ...consumer.Option) func() {
	t.Helper()
	c, err := rocketmq.NewPushConsumer(append([]consumer.Option{
		consumer.WithNsResolver(s.resolver()), consumer.WithGroupName(group), consumer.WithInstance(unique("member")),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset)}, options...)...)
	must(t, err)
	must(t, c.Subscribe(topic, consumer.MessageSelector{Type: consumer.TAG, Expression: tags}, listen))
	must(t, c.Start())
	var once sync.Once
	stop := func() { once.Do(func() { _ = c.Shutdown() }) }
	t.Cleanup(stop)
	return stop
}

// collect starts a consumer that accepts everything it is given.
func collect(t *testing.T, s *server, group, topic, tags string, options ...consumer.Option) (*received, func()) {
	t.Helper()
	r := &received{}
	stop := startConsumer(t, s, group, topic, tags, func(_ context.Context, m ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		r.add(m...)
		return consumer.ConsumeSuccess, nil
	}, options...)
	return r, stop
}

func numbered(stem string, count int) []string {
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("%s%d", stem, i))
	}
	return names
}

// sameSet fails unless both hold the same strings equally often, in any order.
func sameSet(t *testing.T, want, got []string) {
	t.Helper()
	want, got = append([]string(nil), want...), append([]string(nil), got...)
	sort.Strings(want)
	sort.Strings(got)
	if fmt.Sprint(want) != fmt.Sprint(got) {
		t.Fatalf("want %v\n got %v", want, got)
	}
}

func distinct(bodies []string) map[string]bool {
	set := map[string]bool{}
	for _, body := range bodies {
		set[body] = true
	}
	return set
}
