# docker build -t feedback-farm . && docker run --rm -v "$PWD/runs:/data/runs" feedback-farm run pocket
FROM python:3.12-slim
WORKDIR /opt/feedback-farm
COPY . .
RUN pip install --no-cache-dir -c constraints.txt torch \
 && pip install --no-cache-dir -c constraints.txt '.[models,lora,judges]'
ENV FARM_HOME=/data/runs/.home
WORKDIR /data
ENTRYPOINT ["farm"]
CMD ["--help"]
