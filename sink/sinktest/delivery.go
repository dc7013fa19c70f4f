//nolint:thelper // stories are tests, not helpers: a failure belongs to their lines
package sinktest

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/walpost/walpost/outbox"
)

func orderPerPartition(t *testing.T, h Harness) {
	topic := h.Topic(t, 4)
	p, _ := open(t, h, "orders")
	msgs := messages(topic, 500, 17)

	p.send(t, msgs[:1]...)
	p.send(t, msgs[1:300]...)
	p.send(t, msgs[300:]...)
	p.show(t, 500)

	got := h.await(t, topic, 500)
	if diff := cmp.Diff(valuesByKey(msgs), byKey(got)); diff != "" {
		t.Errorf("values by key (-sent +published):\n%s", diff)
	}
	if len(byPartition(got)) < 2 {
		t.Errorf("17 keys went to partitions %v of 4", names(byPartition(got)))
	}
}

func settledOnce(t *testing.T, h Harness) {
	topic := h.Topic(t, 3)
	p, _ := open(t, h, "orders")
	const n = 2000
	for batch := range 20 {
		p.send(t, messages(topic, n/20, batch+1)...)
	}
	p.awaitSettled(t, n)
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if wrongs := p.settled.wrongs(); len(wrongs) > 0 || p.settled.count() != n {
		t.Errorf("%d of %d settled; %v", p.settled.count(), n, wrongs)
	}
}

func settledIsPublished(t *testing.T, h Harness) {
	topic := h.Topic(t, 2)
	p, _ := open(t, h, "orders")
	for i := range 20 {
		p.send(t, message(topic, "k", i))
		p.show(t, uint64(i+1)) // #nosec G115 -- small
		if got := len(h.await(t, topic, i+1)); got != i+1 {
			t.Fatalf("%d messages are settled, a consumer finds %d", i+1, got)
		}
	}
}

func payloadsUnaltered(t *testing.T, h Harness) {
	topic := h.Topic(t, 1)
	p, _ := open(t, h, "orders")
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16-64) // a little under 1 MiB
	cases := []struct {
		key, value []byte
		headers    []outbox.Header
	}{
		{key: nil, value: nil},
		{key: []byte{}, value: []byte{}},
		{key: []byte("k"), value: nil},
		{key: nil, value: []byte("v")},
		{key: []byte("k"), value: []byte("v"), headers: []outbox.Header{{Key: []byte("null"), Value: nil}, {Key: []byte("empty"), Value: []byte{}}, {Key: []byte{}, Value: []byte("no name")}}},
		{key: []byte("k"), value: []byte("v"), headers: []outbox.Header{{Key: []byte("same"), Value: []byte("1")}, {Key: []byte("same"), Value: []byte("2")}}},
		{key: []byte{0, 0xff, 0xfe}, value: []byte("\x00\x01 \xc3\xa4 \xff")},
		{key: []byte("big"), value: big},
	}
	var want []Record
	for i, c := range cases {
		m := message(topic, "", i)
		m.Key, m.Value, m.Headers, m.HashKey = c.key, c.value, c.headers, []byte("h")
		p.send(t, m)
		r := Record{Key: c.key, Value: c.value}
		for _, header := range c.headers {
			r.Headers = append(r.Headers, Header{Key: string(header.Key), Value: header.Value})
		}
		want = append(want, r)
	}
	p.show(t, p.seq)
	if diff := cmp.Diff(want, h.await(t, topic, len(want)), cmp.Comparer(sameBytes)); diff != "" {
		t.Errorf("records (-sent +published):\n%.2000s", diff)
	}
}

// sameBytes tells null from empty.
func sameBytes(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func partitionByHashKey(t *testing.T, h Harness) {
	topic := h.Topic(t, 5)
	p, _ := open(t, h, "orders")
	for i := range 100 {
		m := message(topic, fmt.Sprintf("hash-%d", i%10), i)
		m.Key = fmt.Appendf(nil, "key-%d", i) // of no influence
		m.Value = m.HashKey
		p.send(t, m)
	}
	p.show(t, 100)

	at := map[string]int32{}
	for _, r := range h.await(t, topic, 100) {
		if first, seen := at[string(r.Value)]; seen && first != r.Partition {
			t.Errorf("hash key %s went to partitions %d and %d", r.Value, first, r.Partition)
		}
		at[string(r.Value)] = r.Partition
	}
}

func partitionExplicit(t *testing.T, h Harness) {
	topic := h.Topic(t, 3)
	p, _ := open(t, h, "orders")
	want := map[int32][]string{}
	for i := range 30 {
		m := message(topic, "one key for all", i)
		m.Partition = int32(i * 7 % 3) // #nosec G115 -- small
		want[m.Partition] = append(want[m.Partition], string(m.Value))
		p.send(t, m)
	}
	p.show(t, 30)
	if diff := cmp.Diff(want, byPartition(h.await(t, topic, 30))); diff != "" {
		t.Errorf("values by partition (-sent +published):\n%s", diff)
	}
}
