package kafka

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/IBM/sarama"
)

// marksStore writes and reads the marks of one session: records on partition 0
// of the checkpoint topic, key = the mark's name, value = its bytes, a null
// value deletes.
type marksStore struct {
	cfg      Config
	client   sarama.Client
	producer sarama.SyncProducer // nil where the marks are only read

	// turn is held by whoever uses the producer: a transaction is one
	// goroutine's at a time.
	turn chan struct{}
}

// readMarksOnly connects without fencing anybody.
func readMarksOnly(cfg Config, d *dialer) (*marksStore, error) {
	m := &marksStore{cfg: cfg, turn: make(chan struct{}, 1)}
	client, err := sarama.NewClient(cfg.Brokers, cfg.marksConfig(d, m.inError))
	if err != nil {
		return nil, explain("connect to Kafka", err)
	}
	m.client = client
	return m, nil
}

// fenceMarks connects and makes every earlier producer of the transactional id
// unable to commit: the coordinator raises the id's epoch and finishes what the
// predecessor left open.
func fenceMarks(cfg Config, d *dialer) (*marksStore, error) {
	m, err := readMarksOnly(cfg, d)
	if err != nil {
		return nil, err
	}
	m.producer, err = sarama.NewSyncProducerFromClient(m.client)
	if err != nil {
		m.close()
		return nil, explain("take over transactional id "+cfg.TransactionalID, err)
	}
	return m, nil
}

// inError reports that the transaction at hand has failed. It is asked while one
// is being written, not before there is a producer.
func (m *marksStore) inError() bool {
	return m.producer.TxnStatus()&sarama.ProducerTxnFlagInError != 0
}

func (m *marksStore) close() {
	if m.producer != nil {
		_ = m.producer.Close()
	}
	_ = m.client.Close()
}

// read returns the latest committed value of every mark. The end it reads to is
// the high watermark at the time of the call, not the last stable offset: a
// transaction whose commit was acknowledged may have its marker still on the
// way, and would be missed below the latter.
func (m *marksStore) read() (map[string][]byte, error) {
	topic := m.cfg.CheckpointTopic
	op := "read the checkpoint from topic " + topic
	end, err := m.client.GetOffset(topic, 0, sarama.OffsetNewest)
	if err != nil {
		return nil, explain(op, err)
	}
	start, err := m.client.GetOffset(topic, 0, sarama.OffsetOldest)
	if err != nil {
		return nil, explain(op, err)
	}
	marks := map[string][]byte{}
	reader := committedReader{client: m.client, topic: topic, patience: m.patience()}
	err = reader.read(start, end, func(r *sarama.Record) {
		if r.Value == nil {
			delete(marks, string(r.Key))
			return
		}
		marks[string(r.Key)] = bytes.Clone(r.Value)
	})
	if m.producer == nil && errors.Is(err, errOpenTransaction) {
		return marks, nil
	}
	if err != nil {
		return nil, explain(op, err)
	}
	return marks, nil
}

// patience is how long a reader waits for a transaction to end. The fence has
// ended a predecessor's already. Who has not fenced gives an acknowledged commit
// time to become visible, but does not wait until the coordinator aborts what a
// dead relay has left open: those marks were never durable.
func (m *marksStore) patience() time.Duration {
	if m.producer == nil {
		return min(unfencedPatience, m.cfg.StallTimeout)
	}
	return m.cfg.StallTimeout
}

const unfencedPatience = 500 * time.Millisecond

// write commits marks in one transaction. The caller holds the turn.
func (m *marksStore) write(marks map[string][]byte) error {
	op := "write the checkpoint to topic " + m.cfg.CheckpointTopic
	if err := m.producer.BeginTxn(); err != nil {
		return explain(op, err)
	}
	if err := m.producer.SendMessages(m.records(marks)); err != nil {
		return explain(op, err)
	}
	if err := m.producer.CommitTxn(); err != nil {
		return explain(op, err)
	}
	return nil
}

func (m *marksStore) records(marks map[string][]byte) []*sarama.ProducerMessage {
	records := make([]*sarama.ProducerMessage, 0, len(marks))
	for _, name := range slices.Sorted(maps.Keys(marks)) {
		record := &sarama.ProducerMessage{Topic: m.cfg.CheckpointTopic, Key: sarama.StringEncoder(name)}
		if value := marks[name]; value != nil {
			record.Value = sarama.ByteEncoder(value)
		}
		records = append(records, record)
	}
	return records
}
