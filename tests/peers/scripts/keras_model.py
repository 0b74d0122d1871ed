"""Keras 3 on torch: a model with a nested one, fitted with validation, a schedule of rates and accumulation."""

# mypy: ignore-errors

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
from tests.peers.adapter import adapters

keras.utils.clear_session()  # names are numbered from 0
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
y = (x[:, 0] > 0).astype("int64") + (x[:, 1] > 0)
inside = keras.Sequential([keras.layers.Dense(12), keras.layers.ReLU()], name="inside")
inputs = keras.Input((6,))
outputs = keras.layers.Dense(3, name="head")(keras.layers.Dropout(0.1, name="drop")(inside(inputs)))
network = keras.Model(inputs, outputs)
callbacks = adapters("keras")
schedule = keras.optimizers.schedules.ExponentialDecay(0.05, decay_steps=1, decay_rate=0.5)
for optimizer in (
    keras.optimizers.Adam(schedule),
    keras.optimizers.SGD(0.01, gradient_accumulation_steps=2),
):
    network.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = network.fit(
        x, y, epochs=2, batch_size=8, validation_split=0.2, verbose=0, callbacks=callbacks
    ).history
    for loss, valid_loss, accuracy in zip(
        history["loss"], history["val_loss"], history["val_accuracy"], strict=True
    ):
        print("loss", loss)
        print("valid", valid_loss, accuracy)
