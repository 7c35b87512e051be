# docker build -t feedback-farm . && docker run --rm -v "$PWD/runs:/work/runs" feedback-farm run pocket
FROM python:3.12-slim
WORKDIR /opt/feedback-farm
COPY . .
RUN pip install --no-cache-dir -c constraints.txt torch \
 && pip install --no-cache-dir -c constraints.txt '.[models,lora,judges]'
ENV FARM_HOME=/work/runs/.home
WORKDIR /work
ENTRYPOINT ["farm"]
CMD ["--help"]
