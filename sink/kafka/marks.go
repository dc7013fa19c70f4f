package kafka

import (
	"bytes"
	"errors"
	"fmt"
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
	dialer   *dialer
	client   sarama.Client
	producer sarama.SyncProducer // nil where the marks are only read
	fenced   bool                // nobody else can write them any more

	// sem, of capacity 1, guards the producer, which has one transaction at a
	// time. It is a channel so that waiting can be given up.
	sem chan struct{}
}

// readMarksOnly connects without fencing anybody.
func readMarksOnly(cfg Config, d *dialer) (*marksStore, error) {
	m := &marksStore{cfg: cfg, dialer: d, sem: make(chan struct{}, 1)}
	client, err := sarama.NewClient(cfg.Brokers, cfg.marksConfig(d, m.inError))
	if err != nil {
		return nil, classify("connect to Kafka", err)
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
		return nil, classify("take over transactional id "+cfg.TransactionalID, err)
	}
	m.fenced = true
	return m, nil
}

// inError reports that the current transaction has failed. sarama's producer
// calls it, so m.producer is set by then.
func (m *marksStore) inError() bool { return inError(m.producer) }

func (m *marksStore) close() {
	if m.producer != nil {
		_ = m.producer.Close()
	}
	_ = m.client.Close()
}

// read returns the latest committed value of every mark. It reads up to the high
// watermark at the time of the call, not to the last stable offset: the
// coordinator acknowledges a commit before its marker is written, and until then
// the transaction lies above the last stable offset and would be missed.
func (m *marksStore) read() (marks map[string][]byte, err error) {
	err = m.dialer.patiently(m.cfg.RequestTimeout, "read the checkpoint from topic "+m.cfg.CheckpointTopic, func() (err error) {
		marks, err = m.readOnce()
		return err
	})
	return marks, err
}

func (m *marksStore) readOnce() (map[string][]byte, error) {
	topic := m.cfg.CheckpointTopic
	end, err := m.client.GetOffset(topic, 0, sarama.OffsetNewest)
	if err != nil {
		return nil, err
	}
	start, err := m.client.GetOffset(topic, 0, sarama.OffsetOldest)
	if err != nil {
		return nil, err
	}
	marks := map[string][]byte{}
	reader := committedReader{client: m.client, topic: topic, patience: m.patience()}
	err = reader.read(start, end, func(_ int64, r *sarama.Record) {
		if r.Value == nil {
			delete(marks, string(r.Key))
			return
		}
		marks[string(r.Key)] = bytes.Clone(r.Value)
	})
	if !m.fenced && errors.Is(err, errOpenTransaction) {
		return marks, nil
	}
	return marks, err
}

// patience is how long a reader waits for an open transaction to end. Fencing
// has ended the predecessor's already. Without it,
// the reader gives an acknowledged commit time to become visible, but does not
// wait for the coordinator to abort a dead relay's transaction: those marks were
// never durable.
func (m *marksStore) patience() time.Duration {
	if !m.fenced {
		return min(unfencedPatience, m.cfg.StallTimeout)
	}
	return m.cfg.StallTimeout
}

const unfencedPatience = 500 * time.Millisecond

// write commits marks in one transaction. The caller holds sem.
func (m *marksStore) write(marks map[string][]byte) error {
	op := m.writing()
	records, err := m.records(marks, marksMaxMessageBytes)
	if err != nil {
		return err
	}
	if err := m.producer.BeginTxn(); err != nil {
		return classify(op, err)
	}
	if err := m.producer.SendMessages(records); err != nil {
		return m.refused(op, err)
	}
	if err := m.producer.CommitTxn(); err != nil {
		return classify(op, err)
	}
	return nil
}

// tooManyPartitions is the remedy for a floors mark that is too large. The other
// marks are small.
const tooManyPartitions = "the pipeline has written to more topics and partitions than one record can list: route its events to fewer of them, or split it into several pipelines; " +
	"`walpost init --adopt-slot` makes it forget the topics it no longer writes to"

// refused gives its meaning to an error of writing records.
func (m *marksStore) refused(op string, err error) error {
	if !isAny(firstCause(err), sarama.ErrMessageSizeTooLarge) {
		return classify(op, err)
	}
	return &failure{
		op:     op,
		err:    fmt.Errorf("larger than max.message.bytes of that topic: %w", firstCause(err)),
		remedy: fmt.Sprintf("set max.message.bytes of topic %s to %d; if it is that already, %s", m.cfg.CheckpointTopic, marksMaxMessageBytes, tooManyPartitions),
		final:  true,
	}
}

// records makes a record of each mark, of at most limit bytes as a batch.
func (m *marksStore) records(marks map[string][]byte, limit int) ([]*sarama.ProducerMessage, error) {
	records := make([]*sarama.ProducerMessage, 0, len(marks))
	for _, name := range slices.Sorted(maps.Keys(marks)) {
		record := &sarama.ProducerMessage{Topic: m.cfg.CheckpointTopic, Key: sarama.StringEncoder(name)}
		if value := marks[name]; value != nil {
			record.Value = sarama.ByteEncoder(value)
		}
		if size := batchSize(record); size > limit {
			return nil, &failure{
				op:     m.writing(),
				err:    fmt.Errorf("mark %s takes up to %d bytes as a Kafka batch, the limit is %d", name, size, limit),
				remedy: tooManyPartitions,
				final:  true,
			}
		}
		records = append(records, record)
	}
	return records, nil
}

func (m *marksStore) writing() string {
	return "write the checkpoint to topic " + m.cfg.CheckpointTopic
}
