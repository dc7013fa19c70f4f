package sinktest

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/walpost/walpost/outbox"
)

// message makes the i-th message of a story, with key as its key and hash key.
func message(topic, key string, i int) outbox.Message {
	id := fmt.Sprintf("00000000-0000-4000-8000-%012d", i)
	return outbox.Message{
		Pos:       outbox.Position{Generation: 1, Commit: uint64(1000 + i)}, // #nosec G115 -- small
		Time:      time.Now(),
		ID:        []byte(id),
		Key:       []byte(key),
		HashKey:   []byte(key),
		Value:     fmt.Appendf(nil, `{"n":%d}`, i),
		Topic:     topic,
		Partition: -1,
		Headers:   []outbox.Header{{Key: []byte(outbox.HeaderID), Value: []byte(id)}},
	}
}

// messages makes n, spread over a number of keys.
func messages(topic string, n, keys int) []outbox.Message {
	msgs := make([]outbox.Message, n)
	for i := range msgs {
		msgs[i] = message(topic, fmt.Sprintf("key-%d", i%keys), i)
	}
	return msgs
}

// identified adds the headers by which a message is known again.
func identified(msgs []outbox.Message, source string) []outbox.Message {
	for i := range msgs {
		msgs[i].Headers = append(msgs[i].Headers,
			outbox.Header{Key: []byte(outbox.HeaderSource), Value: []byte(source)},
			outbox.Header{Key: []byte(outbox.HeaderPosition), Value: []byte(msgs[i].Pos.String())})
	}
	return msgs
}

// byPartition groups values, in order.
func byPartition(records []Record) map[int32][]string {
	groups := map[int32][]string{}
	for _, r := range records {
		groups[r.Partition] = append(groups[r.Partition], string(r.Value))
	}
	return groups
}

// byKey groups values, in order.
func byKey(records []Record) map[string][]string {
	groups := map[string][]string{}
	for _, r := range records {
		groups[string(r.Key)] = append(groups[string(r.Key)], string(r.Value))
	}
	return groups
}

func valuesByKey(msgs []outbox.Message) map[string][]string {
	groups := map[string][]string{}
	for _, m := range msgs {
		groups[string(m.Key)] = append(groups[string(m.Key)], string(m.Value))
	}
	return groups
}

// marksOf makes marks from alternating names and values.
func marksOf(pairs ...string) map[string][]byte {
	marks := map[string][]byte{}
	for pair := range slices.Chunk(pairs, 2) {
		marks[pair[0]] = []byte(pair[1])
	}
	return marks
}

func names(groups map[int32][]string) []int32 { return slices.Sorted(maps.Keys(groups)) }
