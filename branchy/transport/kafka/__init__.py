"""Kafka as a transport, on confluent-kafka (librdkafka)."""

from branchy.transport.kafka.link import KafkaLink

__all__ = ["KafkaLink"]
