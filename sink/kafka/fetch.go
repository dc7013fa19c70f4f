package kafka

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"
)

const (
	fetchVersion   = 11 // the newest without flexible fields; 3.9 and 4.x know it
	fetchMaxBytes  = 8 << 20
	fetchMaxWaitMs = 250
)

// committedReader reads a range of one partition as a read_committed consumer
// would. sarama's consumer can't be used: it reports its position only with
// records, so if the last offsets of the range are control records, aborted or
// compacted away, one could not tell when the range is read to its end.
type committedReader struct {
	client    sarama.Client
	topic     string
	partition int32
	patience  time.Duration // without any progress
	stop      func() error  // asked before each request; an error ends the reading; nil: never

	aborting map[int64]bool // producers whose records at this point are aborted
}

// read calls each for every committed record in [from, to) and waits for
// transactions that are open in that range. A record is valid only during the
// call.
func (r *committedReader) read(from, to int64, each func(offset int64, record *sarama.Record)) error {
	r.aborting = map[int64]bool{}
	next := from
	progress := time.Now()
	for next < to {
		if r.stop != nil {
			if err := r.stop(); err != nil {
				return err
			}
		}
		block, err := r.fetch(next)
		if err != nil {
			return err
		}
		reached := r.consume(block, next, to, each)
		if reached > next {
			next, progress = reached, time.Now()
			continue
		}
		if time.Since(progress) > r.patience {
			return r.unreadable(next, to, block.LastStableOffset)
		}
	}
	return nil
}

// errOpenTransaction says that the rest of a range can't be read because a
// transaction in or before it has not ended.
var errOpenTransaction = errors.New("a transaction is open there")

func (r *committedReader) unreadable(next, to, stable int64) error {
	err := fmt.Errorf("read %s/%d: nothing between offset %d and the end %d became readable for %s; last stable offset %d",
		r.topic, r.partition, next, to, r.patience, stable)
	if stable <= next {
		return fmt.Errorf("%w: %w", err, errOpenTransaction)
	}
	return err
}

func (r *committedReader) fetch(offset int64) (*sarama.FetchResponseBlock, error) {
	leader, err := r.client.Leader(r.topic, r.partition)
	if err != nil {
		return nil, err
	}
	req := &sarama.FetchRequest{Version: fetchVersion, MaxWaitTime: fetchMaxWaitMs, MinBytes: 1, MaxBytes: fetchMaxBytes, Isolation: sarama.ReadCommitted}
	req.AddBlock(r.topic, r.partition, offset, fetchMaxBytes, -1)
	resp, err := leader.Fetch(req)
	if err != nil {
		return nil, err
	}
	block := resp.GetBlock(r.topic, r.partition)
	if block == nil {
		return nil, sarama.ErrIncompleteResponse
	}
	if block.Err != sarama.ErrNoError {
		return nil, block.Err
	}
	return block, nil
}

// consume walks through the batches of a response and returns the offset after
// the last of them.
func (r *committedReader) consume(block *sarama.FetchResponseBlock, from, to int64, each func(int64, *sarama.Record)) int64 {
	aborted := slices.Clone(block.AbortedTransactions)
	slices.SortFunc(aborted, func(a, b *sarama.AbortedTransaction) int { return cmp.Compare(a.FirstOffset, b.FirstOffset) })
	next := from
	for _, set := range block.RecordsSet {
		batch := set.RecordBatch
		if batch == nil || batch.PartialTrailingRecord {
			continue
		}
		end := batch.FirstOffset + int64(batch.LastOffsetDelta) + 1
		if end <= next {
			continue
		}
		for len(aborted) > 0 && aborted[0].FirstOffset < end {
			r.aborting[aborted[0].ProducerID] = true
			aborted = aborted[1:]
		}
		r.batch(batch, from, to, each)
		next = end
	}
	return next
}

func (r *committedReader) batch(batch *sarama.RecordBatch, from, to int64, each func(int64, *sarama.Record)) {
	if batch.Control {
		if isAbortMarker(batch) {
			delete(r.aborting, batch.ProducerID)
		}
		return
	}
	if batch.IsTransactional && r.aborting[batch.ProducerID] {
		return
	}
	for _, record := range batch.Records {
		offset := batch.FirstOffset + record.OffsetDelta
		if offset >= from && offset < to {
			each(offset, record)
		}
	}
}

// isAbortMarker: the key of a control record is version and type, two bytes
// each; type 0 is abort, 1 is commit.
func isAbortMarker(batch *sarama.RecordBatch) bool {
	return len(batch.Records) > 0 && len(batch.Records[0].Key) >= 4 && binary.BigEndian.Uint16(batch.Records[0].Key[2:]) == 0
}
