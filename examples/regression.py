"""Regression on a CSV: diabetes, by age, weight, blood pressure and seven more numbers of 442 people."""

import pandas as pd
import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from valleys import Landscape

load_diabetes(as_frame=True).frame.to_csv("diabetes.csv", index=False)  # stands for a file of your own

torch.manual_seed(0)
table = torch.tensor(pd.read_csv("diabetes.csv").to_numpy(), dtype=torch.float32)
table = (table - table.mean(0)) / table.std(0)
train = TensorDataset(table[:300, :-1], table[:300, -1:])
test = TensorDataset(table[300:, :-1], table[300:, -1:])
model = nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))
loss = nn.MSELoss(reduction="none")
sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
checkpoints = []
for _ in range(15):
    for x, y in DataLoader(train, batch_size=50, shuffle=True):
        sgd.zero_grad()
        loss(model(x), y).mean().backward()
        sgd.step()
    checkpoints.append({name: tensor.clone() for name, tensor in model.state_dict().items()})

batches = DataLoader(train, batch_size=100), DataLoader(test, batch_size=142)
landscape = Landscape(model, batches[0], loss, test=batches[1], progress=False)
print(
    f"mean squared error {landscape.loss()['train_loss']:.3f} and on test {landscape.loss()['test_loss']:.3f}"
)
for found in (
    landscape.line("gaussian", rise=0.5),
    landscape.average(checkpoints[-5:]),
    landscape.audit(directions=3),
):
    print(found)
