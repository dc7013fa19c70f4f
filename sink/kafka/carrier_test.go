package kafka

import (
	"testing"
	"time"

	"github.com/IBM/sarama"

	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/sink"
)

func TestSendingAllocatesNothingOfItsOwn(t *testing.T) {
	m := event("topic", -1, 1)
	m.Headers = []outbox.Header{{Key: []byte("id"), Value: m.ID}, {Key: []byte("type"), Value: []byte("created")}}
	to := &topic{partitions: []*partition{{topic: "topic"}, {topic: "topic", number: 1}}}
	spare := spares{list: &freeList{}}
	now := time.Now()
	use := func() {
		p, err := to.pick(&m)
		if err != nil {
			t.Fatal(err)
		}
		s := spare.take()
		s.load(&m, p, now)
		if sizeOf(&m) != batchSize(&s.msg) {
			t.Fatal("the size is not what sarama takes it for")
		}
		s.clear()
		spare.list.put([]*carrier{s})
	}
	for range 2 * carrierChunk {
		use() // every carrier has grown its array of headers
	}
	if allocs := fewestAllocs(func() {
		for range 1000 {
			use()
		}
	}); allocs != 0 {
		t.Errorf("%v allocations in sending 1000 messages", allocs)
	}
}

func TestSettlingAllocatesNothingOfItsOwn(t *testing.T) {
	s := &session{floors: &floors{}, moved: make(chan struct{}, 1), settle: func([]uint64, sink.Outcome) {}}
	d := newDrain(s)
	p := &partition{floor: &partitionFloor{}}
	spare := spares{list: &s.carriers}
	acknowledged := make(chan *sarama.ProducerMessage, 100)
	m := event("topic", 0, 0)
	use := func() {
		for range cap(acknowledged) {
			m.Seq++
			carrier := spare.take()
			carrier.load(&m, p, m.Time)
			carrier.msg.Offset = int64(m.Seq)
			acknowledged <- &carrier.msg
		}
		d.gather(<-acknowledged, acknowledged)
		d.settle()
	}
	for range 2 * maxPoints {
		use() // every slice has reached its size
	}
	if allocs := fewestAllocs(use); allocs != 0 {
		t.Errorf("%v allocations in settling 100 messages", allocs)
	}
}

// fewestAllocs is what f allocates: allocations are counted for the whole
// process, and what other tests have left running must not count.
func fewestAllocs(f func()) float64 {
	fewest := testing.AllocsPerRun(1, f)
	for range 20 {
		fewest = min(fewest, testing.AllocsPerRun(1, f))
	}
	return fewest
}

func TestSlotForgetsWhatItWasLent(t *testing.T) {
	m := event("topic", 0, 1)
	m.Headers = []outbox.Header{{Key: []byte("id"), Value: m.ID}}
	var s carrier
	s.load(&m, &partition{}, m.Time)
	s.clear()
	if s.key != nil || s.value != nil || s.id != nil || s.msg.Key != nil || s.msg.Headers != nil || s.headers[0].Value != nil {
		t.Error("a cleared carrier still refers to lent bytes")
	}
}

func TestTimestampsAreNotInTheFuture(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct{ in, want time.Time }{
		"past":   {now.Add(-time.Hour), now.Add(-time.Hour)},
		"future": {now.Add(time.Minute), now},
		"none":   {time.Time{}, now},
	} {
		if got := clamp(c.in, now); !got.Equal(c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
