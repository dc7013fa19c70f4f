package kafka

import (
	"errors"
	"fmt"

	"github.com/IBM/sarama"

	"github.com/walpost/walpost/sink"
)

// Conditions this package puts a relay in, by their stable names.
const (
	condUnreachable       = "kafka_unreachable"
	condAuthFailed        = "kafka_auth_failed"
	condTopicMissing      = "topic_missing"
	condCheckpointMissing = "checkpoint_missing"
	condCheckpointTooNew  = "checkpoint_too_new"
	condStalled           = "stalled"
	condLostRecords       = "kafka_lost_records"
	condDiverged          = "history_diverged"
	// condTakenOver is reported by a fenced producer: another relay of this
	// pipeline works, and this one is its standby. A relay is also fenced when
	// its own transaction outlived its timeout, which only an atomic session can
	// tell. Then it looks like a
	// standby too, although nobody else works, but only for the backoff until
	// its next attempt: that finds the slot free and streams, or reports what is
	// really wrong.
	condTakenOver = "slot_busy"
)

// failure is an error with the condition, remedy and retryability that the relay
// asks for.
type failure struct {
	op        string // what was attempted, on what
	condition string // "": none
	remedy    string // "": that of the condition
	final     bool   // trying again can't help
	err       error
}

func (f *failure) Error() string     { return f.op + ": " + f.err.Error() }
func (f *failure) Unwrap() error     { return f.err }
func (f *failure) Condition() string { return f.condition }
func (f *failure) Remedy() string    { return f.remedy }
func (f *failure) Retryable() bool   { return !f.final }

// errClosed is the error of a call on a session that is closed or closing.
var errClosed = errors.New("kafka session: closed")

// classify turns an error of sarama's into a failure. An error that is classified
// already stays as it is.
func classify(op string, err error) error {
	var known *failure
	var rejected *sink.Rejected
	var misconfigured sarama.ConfigurationError
	if errors.As(err, &known) || errors.As(err, &rejected) {
		return err
	}
	err = firstCause(err)
	f := &failure{op: op, err: err}
	switch {
	case isFenced(err):
		// sarama has no text for one of them.
		f.err = fmt.Errorf("fenced: another relay of this pipeline has taken over (or a transaction outlived its timeout): %w", err)
		f.condition = condTakenOver
	case isAny(err, sarama.ErrTopicAuthorizationFailed, sarama.ErrClusterAuthorizationFailed, sarama.ErrTransactionalIDAuthorizationFailed,
		sarama.ErrGroupAuthorizationFailed, sarama.ErrSASLAuthenticationFailed, sarama.ErrUnsupportedSASLMechanism, sarama.ErrIllegalSASLState):
		f.condition = condAuthFailed
	case isAny(err, sarama.ErrUnknownTopicOrPartition):
		f.condition = condTopicMissing
	case isAny(err, sarama.ErrNotEnoughReplicas, sarama.ErrNotEnoughReplicasAfterAppend):
		f.condition = condStalled
	case isAny(err, sarama.ErrInvalidProducerIDMapping, sarama.ErrUnknownProducerID):
		f.err = fmt.Errorf("the brokers no longer know the producer, which has been idle for long (transactional.id.expiration.ms, producer.id.expiration.ms): %w", err)
	case isAny(err, sarama.ErrInvalidTransactionTimeout):
		f.remedy = "lower the transaction timeout, or raise transaction.max.timeout.ms of the brokers"
		f.final = true
	case errors.As(err, &misconfigured):
		f.err = fmt.Errorf("refused by the Kafka client itself: %w", err)
		f.remedy = "correct the kafka setting that the error names; if walpost has no such setting, report it as a bug"
		f.final = true
	case !isAnswer(err):
		f.err = fmt.Errorf("the brokers can't be reached: %w", err)
		f.condition = condUnreachable
	}
	return f
}

// isFenced reports whether err says that the producer's epoch or its transaction
// is over: a successor has ended it, or the coordinator, for having timed out.
func isFenced(err error) bool {
	return isAny(err, sarama.ErrProducerFenced, sarama.ErrInvalidProducerEpoch, sarama.ErrInvalidTxnState)
}

// isAnswer reports whether err is an error code from a broker, which therefore
// can be reached. Codes that say that another broker is away count as
// unreachable.
func isAnswer(err error) bool {
	var code sarama.KError
	if !errors.As(err, &code) {
		return false
	}
	return !isAny(code, sarama.ErrLeaderNotAvailable, sarama.ErrNotLeaderForPartition, sarama.ErrRequestTimedOut, sarama.ErrBrokerNotAvailable,
		sarama.ErrReplicaNotAvailable, sarama.ErrNetworkException, sarama.ErrConsumerCoordinatorNotAvailable, sarama.ErrNotCoordinatorForConsumer,
		sarama.ErrOffsetsLoadInProgress, sarama.ErrNotController)
}

// refusesRecord reports whether err is about the records themselves, so that
// sending them again would fail again.
func refusesRecord(err error) bool {
	var unencodable sarama.PacketEncodingError
	return errors.As(err, &unencodable) || isAny(err, sarama.ErrMessageSizeTooLarge, sarama.ErrMessageSetSizeTooLarge,
		sarama.ErrInvalidRecord, sarama.ErrInvalidTopic, sarama.ErrInvalidTimestamp, sarama.ErrPolicyViolation, sarama.ErrUnsupportedForMessageFormat)
}

// firstCause is the first of the errors that sarama's synchronous producer
// returns as a list, whose own text is only their number.
func firstCause(err error) error {
	var list sarama.ProducerErrors
	if errors.As(err, &list) && len(list) > 0 {
		return list[0].Err
	}
	return err
}

func isAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
